fn main() {}

trilut_macros::kernels! {
    isas = [scalar];
    isas = [avx2];
    shapes = [64 x 256];
}
