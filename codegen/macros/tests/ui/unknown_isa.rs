fn main() {}

trilut_macros::kernels! {
    isas = [scalar, avx3];
    shapes = [64 x 256];
}
