fn main() {}

trilut_macros::kernels! {
    shapes = [64 x 256: r4u2, 128 x 256: r1u1];
}
