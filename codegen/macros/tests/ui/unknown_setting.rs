fn main() {}

trilut_macros::kernels! {
    format = i2_s;
    shape = [64 x 256];
}
