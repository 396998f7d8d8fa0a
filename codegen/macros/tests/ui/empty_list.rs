fn main() {}

trilut_macros::kernels! {
    isas = [];
    shapes = [64 x 256];
}
