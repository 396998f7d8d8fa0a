fn main() {}

trilut_macros::kernels! {
    format = i2_s;
    shapes = [64 x 256, 0x128];
}
