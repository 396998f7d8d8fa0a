fn main() {}

trilut_macros::kernels! {
    formats = [i2_s, tl3];
    shapes = [64 x 256];
}
