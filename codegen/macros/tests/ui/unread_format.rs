fn main() {}

trilut_macros::kernels! {
    formats = [base3, i2_s];
    isas = [avx512vbmi];
    shapes = [64 x 256];
}
