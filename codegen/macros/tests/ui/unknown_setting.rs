fn main() {}

trilut_macros::kernels! {
    formats = [i2_s];
    shape = [64 x 256];
}
