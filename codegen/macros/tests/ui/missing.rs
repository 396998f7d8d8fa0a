fn main() {}

trilut_macros::kernels! {
    formats = [tl1];
}
