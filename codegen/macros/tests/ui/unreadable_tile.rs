fn main() {}

trilut_macros::kernels! {
    formats = [i2_s];
    shapes = [64 x 256: r4];
}
