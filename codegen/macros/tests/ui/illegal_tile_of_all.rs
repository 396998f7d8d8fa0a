fn main() {}

trilut_macros::kernels! {
    formats = [tl1];
    isas = [avx2];
    tile = r8u1;
    shapes = [64 x 256];
}
