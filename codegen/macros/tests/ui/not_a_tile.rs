fn main() {}

trilut_macros::kernels! {
    shapes = [64 x 256];
    tile = 4x2;
}
