fn main() {}

trilut_macros::kernels! {
    format = tl1;
}
