fn main() {}

trilut_macros::kernels! {
    shapes = [64 by 256];
}
