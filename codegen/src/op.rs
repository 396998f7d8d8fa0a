//! The ops that algorithms are written in, as data.
//!
//! A vector op names its operands; an ISA's spelling table turns it into an expression. Scalar Rust
//! (addresses, loop bounds) is the same on every ISA, so it stays as tokens.

use proc_macro2::{Ident, Span, TokenStream};

/// A vector variable of the generated function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Var(pub Ident);

impl quote::ToTokens for Var {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.0.to_tokens(tokens);
    }
}

/// The element type of a sum. (All other vectors are bytes: codes, indices, masks, int8 activations.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// int16 partial sums.
    I16,
    /// int32 sums.
    I32,
}

/// Which half of every 16-byte lane, or of the whole vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// The lower half.
    Low,
    /// The upper half.
    High,
}

/// A slice that vectors are loaded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The packed weights.
    Weights,
    /// The prepared activations.
    Activations,
    /// Those of a token of the tile, by its position in it.
    Token(usize),
}

/// A buffer of lanes that gemm kernels keep values in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// int16 tables and partial sums, written and read back.
    Scratch,
    /// int32 sums, rows by tokens, written and read back.
    Sums,
    /// One int32 sum of activations per token, read only.
    TokenSums,
}

/// A vector operation. `W` is the vector width in bytes.
#[derive(Debug, Clone)]
pub enum Op {
    /// All lanes 0.
    Zero(Lane),
    /// `W` bytes from byte offset `at`.
    Load {
        /// The slice.
        from: Source,
        /// Byte offset.
        at: TokenStream,
    },
    /// `W / 2` bytes from byte offset `at`, the upper half 0.
    LoadLow {
        /// The slice.
        from: Source,
        /// Byte offset.
        at: TokenStream,
    },
    /// `W / 2` bytes from each of two byte offsets of the weights.
    LoadTwo {
        /// Byte offsets of the lower and of the upper half.
        at: [TokenStream; 2],
    },
    /// `W / 2` bytes from the same byte offset of each of two slices.
    LoadPair {
        /// The slices of the lower and of the upper half.
        from: [Source; 2],
        /// Byte offset.
        at: TokenStream,
    },
    /// The 16-byte table at `at` of the activations, repeated in every 16-byte lane.
    Table {
        /// Byte offset.
        at: TokenStream,
    },
    /// The `W` bits from byte offset `at` of the weights, each widened to a byte of 0x00 or 0xff.
    Signs {
        /// Byte offset.
        at: TokenStream,
    },
    /// `W / 2` bits from each of two byte offsets of the weights, each widened to a byte of 0x00 or 0xff.
    SignsTwo {
        /// Byte offsets of the bits of the lower and of the upper half.
        at: [TokenStream; 2],
    },
    /// Bytewise `(a >> shift) & mask`.
    Field {
        /// The operand.
        a: Var,
        /// Bits shifted out at the bottom.
        shift: u32,
        /// The bits kept.
        mask: u8,
    },
    /// Bytes times 3, modulo 256.
    Triple {
        /// The operand.
        a: Var,
    },
    /// Bytes with the top bit inverted.
    Flip {
        /// The operand.
        a: Var,
    },
    /// The leading base-3 digit of flipped bytes: with `x = a ^ 0x80`, `3 x / 256`.
    Digit {
        /// A [`Op::Flip`], or its [`Op::Triple`].
        a: Var,
    },
    /// Bytes through a table of 256.
    Map {
        /// The operand.
        a: Var,
        /// The name of the table in `trilut_kernels::lanes::base3`.
        table: &'static str,
    },
    /// Neighbouring pairs of `codes` (0..=127) times signed `q`, added to int16 (|sum of a pair| < 2^15).
    MulAddPairs {
        /// Unsigned operand.
        codes: Var,
        /// Signed operand.
        q: Var,
    },
    /// The same, but which two products make a pair is left open: for lanes that are only ever totalled.
    MulAddAny {
        /// Unsigned operand.
        codes: Var,
        /// Signed operand.
        q: Var,
    },
    /// `acc` (int32) plus groups of four products of `codes` and signed `q`. Codes are unsigned, or signed
    /// where the plan says so.
    Dot {
        /// int32 sums.
        acc: Var,
        /// Unsigned operand.
        codes: Var,
        /// Signed operand.
        q: Var,
    },
    /// `table[index]` bytewise within each 16-byte lane; indices are 0..=15.
    Lookup {
        /// A [`Op::Table`].
        table: Var,
        /// Indices.
        index: Var,
    },
    /// 2 x 2 products of rows of eight bytes: `acc[2 i + j]` (int32) plus the sum of
    /// `codes[8 i + n] * q[8 j + n]`. Codes are 0..=127.
    MatMul {
        /// int32 sums.
        acc: Var,
        /// Two rows of codes.
        codes: Var,
        /// Two tokens' signed activations.
        q: Var,
    },
    /// One half of `a`, then the same half of `b` (int32 lanes).
    Join {
        /// Gives the lower half.
        a: Var,
        /// Gives the upper half.
        b: Var,
        /// Which half of each.
        half: Half,
    },
    /// Bitwise exclusive or.
    Xor {
        /// One operand.
        a: Var,
        /// The other.
        b: Var,
    },
    /// int16 lanes `high[i] << 8 | low[i]` of one half of every 16-byte lane.
    Interleave {
        /// Low bytes.
        low: Var,
        /// High bytes.
        high: Var,
        /// Which half.
        half: Half,
    },
    /// Lanewise sum; int16 sums are proven not to wrap by the plan.
    Add {
        /// Element type.
        lane: Lane,
        /// One operand.
        a: Var,
        /// The other.
        b: Var,
    },
    /// `acc` (int32) plus the sums of neighbouring int16 lanes of `a`.
    WidenPairs {
        /// int32 sums.
        acc: Var,
        /// int16 sums.
        a: Var,
    },
    /// `acc` (int32) plus one half of the int16 lanes of `a`, in order.
    WidenHalf {
        /// int32 sums.
        acc: Var,
        /// int16 sums.
        a: Var,
        /// Which half of the vector.
        half: Half,
    },
    /// Lanewise difference; int16 differences are proven not to wrap by the plan.
    Sub {
        /// Element type.
        lane: Lane,
        /// Taken from.
        a: Var,
        /// Taken away.
        b: Var,
    },
    /// `W / 2` int8 activations from byte offset `at`, each widened to an int16 lane.
    LoadTokens {
        /// Byte offset.
        at: TokenStream,
    },
    /// A vector of lanes from element `at` of a buffer.
    LoadLanes {
        /// The buffer.
        from: Buffer,
        /// Element.
        at: TokenStream,
    },
    /// The 4 bytes at byte offset `at` of the weights, repeated.
    Broadcast {
        /// Byte offset.
        at: TokenStream,
    },
    /// int32 lanes shifted right arithmetically.
    ShiftRight {
        /// The operand.
        a: Var,
        /// Bits.
        bits: u32,
    },
}

/// A statement of the generated function.
#[derive(Debug, Clone)]
pub enum Stmt {
    /// `let var = op;`, `let mut` when it is assigned later.
    Let {
        /// The new variable.
        var: Var,
        /// Whether it is assigned again.
        mutable: bool,
        /// Its value.
        op: Op,
    },
    /// `var = op;`
    Set {
        /// The variable.
        var: Var,
        /// Its new value.
        op: Op,
    },
    /// `place = sum of the int32 lanes of a`, plus a scalar expression.
    StoreSum {
        /// A scalar int32 place.
        place: TokenStream,
        /// The lanes.
        a: Var,
        /// What is added to the sum.
        plus: TokenStream,
    },
    /// `out[at + i] = sum of the int32 lanes of sums[i]`, less a scalar expression.
    StoreSums {
        /// Position in `out`.
        at: TokenStream,
        /// The lanes, by output.
        sums: Vec<Var>,
        /// What is taken from each sum.
        minus: TokenStream,
    },
    /// Stores the int32 lanes of `a`, which are sums of rows, to the local array `sums` from position `at`:
    /// as [`Op::Interleave`] and [`Op::WidenHalf`] leave them, eight neighbours at most, the next eight 16 on.
    StoreLanes {
        /// Position in `sums`.
        at: usize,
        /// The lanes.
        a: Var,
    },
    /// Stores the lanes of `a` from element `at` of a buffer.
    Keep {
        /// The buffer.
        to: Buffer,
        /// Element.
        at: TokenStream,
        /// The lanes.
        a: Var,
    },
    /// Asks for the cache line of the weights at byte offset `at`, wherever that is.
    Prefetch {
        /// Byte offset.
        at: TokenStream,
    },
    /// Plain Rust, the same on every ISA.
    Scalar(TokenStream),
    /// `if condition { body }`
    If {
        /// The condition.
        condition: TokenStream,
        /// The body.
        body: Vec<Stmt>,
    },
    /// `for binding in range { body }`
    For {
        /// Pattern and iterator, as in `for HEAD {`.
        head: TokenStream,
        /// The body.
        body: Vec<Stmt>,
    },
    /// `while condition { body }`
    While {
        /// The condition.
        condition: TokenStream,
        /// The body.
        body: Vec<Stmt>,
    },
}

/// A list of statements under construction; hands out variable names.
#[derive(Debug, Default)]
pub struct Builder {
    stmts: Vec<Stmt>,
    names: std::collections::BTreeMap<String, usize>,
}

impl Builder {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    fn fresh(&mut self, hint: &str) -> Var {
        let count = self.names.entry(hint.to_owned()).or_default();
        let name = format!("{hint}{count}");
        *count += 1;
        Var(Ident::new(&name, Span::call_site()))
    }

    /// A new variable that is never assigned again.
    pub fn bind(&mut self, hint: &str, op: Op) -> Var {
        let var = self.fresh(hint);
        self.stmts.push(Stmt::Let { var: var.clone(), mutable: false, op });
        var
    }

    /// A new variable that is assigned later.
    pub fn bind_mut(&mut self, hint: &str, op: Op) -> Var {
        let var = self.fresh(hint);
        self.stmts.push(Stmt::Let { var: var.clone(), mutable: true, op });
        var
    }

    /// `count` new zero sums that are added to later.
    pub fn sums(&mut self, hint: &str, lane: Lane, count: usize) -> Vec<Var> {
        (0..count).map(|_| self.bind_mut(hint, Op::Zero(lane))).collect()
    }

    /// Assigns a variable.
    pub fn set(&mut self, var: &Var, op: Op) {
        self.stmts.push(Stmt::Set { var: var.clone(), op });
    }

    /// `acc = acc + a`, lanewise.
    pub fn add(&mut self, lane: Lane, acc: &Var, a: Var) {
        self.set(acc, Op::Add { lane, a: acc.clone(), b: a });
    }

    /// Any other statement.
    pub fn push(&mut self, stmt: Stmt) {
        self.stmts.push(stmt);
    }

    /// Plain Rust.
    pub fn scalar(&mut self, tokens: TokenStream) {
        self.push(Stmt::Scalar(tokens));
    }

    /// The statements that `body` builds.
    fn nested(&mut self, body: impl FnOnce(&mut Self)) -> Vec<Stmt> {
        let outer = std::mem::take(&mut self.stmts);
        body(self);
        std::mem::replace(&mut self.stmts, outer)
    }

    /// A loop whose body is built by `body`.
    pub fn repeat(&mut self, condition: TokenStream, body: impl FnOnce(&mut Self)) {
        let body = self.nested(body);
        self.push(Stmt::While { condition, body });
    }

    /// `for head { .. }` whose body is built by `body`.
    pub fn each(&mut self, head: TokenStream, body: impl FnOnce(&mut Self)) {
        let body = self.nested(body);
        self.push(Stmt::For { head, body });
    }

    /// A branch whose body is built by `body`.
    pub fn when(&mut self, condition: TokenStream, body: impl FnOnce(&mut Self)) {
        let body = self.nested(body);
        self.push(Stmt::If { condition, body });
    }

    /// The statements.
    pub fn finish(self) -> Vec<Stmt> {
        self.stmts
    }
}
