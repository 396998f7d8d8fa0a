fn main() {}

trilut_macros::kernels! {
    format = q4_0;
    shapes = [64 x 256];
}
