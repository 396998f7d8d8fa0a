//! Models: what is loaded of a file, and its forward pass.
//!
//! [`Model`] is a handle to immutable weights, tokenizer and threads; it is cheap to clone. A
//! [`State`] holds what a run changes: the cache of some sequences and scratch space.
//! [`Model::forward`] takes a batch of tokens, each with its sequence and position, so that prompts,
//! single steps and several texts at once are the same call. The graph itself is in `forward.rs`, and what
//! distinguishes the families of models in `family.rs`.

mod attention;
mod batch;
mod buffer;
mod config;
mod family;
mod fixed_passage;
mod forward;
mod groups;
mod linear;
mod matrix;
mod passage;
mod scratch;
mod stack;
mod weights;
mod window;

pub use batch::BatchChoice;
pub use config::Config;
pub use family::Family;
pub use linear::Choice;
pub use stack::PrefillChoice;
pub use weights::Load;
pub use window::{Alternation, Window};

use crate::gguf::{Gguf, TernaryLayouts};
use crate::tokenizer::Tokenizer;
use crate::{Cache, CacheType, Error, Session, Trace, embedded};
use forward::Forward;
use scratch::Scratch;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use trilut_kernels::pool::{Pool, default_threads};
use trilut_kernels::{Cpu, Format};
use trilut_presets::{MOST_THREADS, Plan};
use weights::Weights;
use window::Ropes;

/// How a model is loaded; [`Engine`](crate::Engine) makes them for models that are run alike.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions<'a> {
    /// The stored codec to run in; `None` leaves it to the plan (I2_S without one).
    pub format: Option<Format>,
    /// Worker threads; `None` takes every core.
    pub threads: Option<usize>,
    /// The tuned choice of kernels, if there is one.
    pub plan: Option<&'a Plan>,
    /// The ISAs that may be used; `None` asks the CPU and `TRILUT_ISA`.
    pub cpu: Option<Cpu>,
    /// What keys and values are cached as.
    pub cache: CacheType,
    /// Positions of a session; `None` takes what the model was made for.
    pub context: Option<usize>,
    /// Where the weights are kept.
    pub load: Load,
    /// What the file does not say about its ternary tensors.
    pub layouts: TernaryLayouts,
    /// Only the first of its blocks, for measuring what one costs; `None` takes all.
    pub layers: Option<usize>,
}

/// One token of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The sequence it belongs to.
    pub sequence: usize,
    /// Its position there: the sequence's length, counting the rows before this one.
    pub position: usize,
    /// The token.
    pub token: u32,
    /// Whether its logits are wanted.
    pub logits: bool,
}

/// A loaded model. Clones share it.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    weights: Weights,
    tokenizer: Tokenizer,
    choices: [Choice; 7],
    stacks: Vec<PrefillChoice>,
    cpu: Cpu,
    context: usize,
    cache: CacheType,
    load: Load,
    pool: Pool,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({:?}, {:?})", self.inner.config, self.inner.pool)
    }
}

/// What a forward pass changes: the sequences' cache, tables that grow with them, and scratch space.
#[derive(Debug)]
pub struct State {
    cache: Cache,
    scratch: Scratch,
    /// Tables up to the furthest position so far.
    ropes: Ropes,
    /// The sizes of the model it was made for.
    config: Config,
}

impl State {
    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Forgets the positions of a sequence from `len` on.
    pub fn truncate(&mut self, sequence: usize, len: usize) {
        self.cache.truncate(sequence, len);
    }

    /// Lets the sequence `to` begin with the first `len` positions of `from`: see [`Cache::copy`].
    pub fn copy(&mut self, from: usize, to: usize, len: usize) {
        self.cache.copy(from, to, len);
    }
}

impl Model {
    /// Opens a GGUF file with default options.
    ///
    /// # Errors
    /// When it is not a usable model file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(&Gguf::open(path)?, &ModelOptions::default())
    }

    /// The demo model inside the program, with default options.
    ///
    /// # Errors
    /// When the program was built with a broken one.
    pub fn embedded() -> Result<Self, Error> {
        Self::open_with(&Gguf::from_static(embedded::model())?, &ModelOptions::default())
    }

    /// Loads a model from an open file. With [`Load::Map`], weights whose kernel reads the file's own
    /// layout are executed in place; the file stays mapped as long as the model needs it.
    ///
    /// # Errors
    /// When the file is not a usable model, an option is out of range, or the machine's memory does not
    /// hold the cache of one sequence. A plan never fails: picks
    /// that cannot be used here are replaced by default kernels, see [`Model::kernels`].
    pub fn open_with(gguf: &Gguf, options: &ModelOptions<'_>) -> Result<Self, Error> {
        let mut config = Config::from_gguf(gguf)?;
        if let Some(layers) = options.layers {
            if !(1..=config.layers).contains(&layers) {
                return Err(Error::Layers { asked: layers, most: config.layers });
            }
            config.layers = layers;
        }
        let threads = options.threads.unwrap_or_else(default_threads);
        if !(1..=MOST_THREADS).contains(&threads) {
            return Err(Error::Threads { threads, most: MOST_THREADS });
        }
        let context = options.context.unwrap_or(config.context);
        if !(1..=config.context).contains(&context) {
            return Err(Error::Context { asked: context, most: config.context });
        }
        // Before the weights, which take their time.
        Cache::check(&config, 1, context, options.cache)?;
        let cpu = options.cpu.clone().unwrap_or_else(Cpu::detect);
        let mut choices = config
            .linears()
            .map(|(_, shape)| Choice::make(shape, options.format, threads, options.plan, &cpu));
        let from = stack::least_prompt(&choices);
        let stacks = config
            .stacks()
            .into_iter()
            .map(|(_, shape)| PrefillChoice::make(shape, threads, options.plan, &cpu, from))
            .collect();
        // Side by side: neither uses all cores all the time.
        let (weights, tokenizer) = rayon::join(
            || Weights::load(gguf, &config, &choices, threads, &cpu, options),
            || Tokenizer::from_gguf(gguf),
        );
        let tokenizer = tokenizer?;
        // A padded embedding may have more rows than there are tokens, but not fewer.
        if tokenizer.vocab_size() > config.vocab {
            let (tokenizer, model) = (tokenizer.vocab_size(), config.vocab);
            return Err(Error::Vocabulary { tokenizer, model });
        }
        let mut weights = weights?;
        // What runs groups of inputs is another kernel; each block has the same layers.
        for (choice, linear) in choices.iter_mut().zip(weights.blocks[0].linears()) {
            if let Some(groups) = linear.groups() {
                *choice = groups.choice().clone();
            }
        }
        let (load, pool) = (options.load, Pool::new(threads));
        weights.settle(&pool);
        match load {
            Load::Map => gguf.release_metadata(),
            Load::Copy => gguf.release(0..gguf.file_len()),
        }
        let inner = Inner {
            config,
            weights,
            tokenizer,
            choices,
            stacks,
            cpu,
            context,
            cache: options.cache,
            load,
            pool,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }

    /// The number of worker threads.
    pub fn threads(&self) -> usize {
        self.inner.pool.threads()
    }

    /// The most positions of a session.
    pub fn context(&self) -> usize {
        self.inner.context
    }

    /// The chosen kernel of each linear layer of a block, by tensor name, with the reason.
    pub fn kernels(&self) -> impl Iterator<Item = (&'static str, &Choice)> {
        let names = self.inner.config.linears().map(|(name, _)| name);
        names.into_iter().zip(&self.inner.choices)
    }

    /// The chosen gemm kernel of each stack of a block, by name, with the reason.
    pub fn prefill_kernels(&self) -> impl Iterator<Item = (&'static str, &PrefillChoice)> {
        let names = self.inner.config.stacks().into_iter().map(|(name, _)| name);
        names.zip(&self.inner.stacks)
    }

    /// What keys and values are cached as.
    pub fn cache_type(&self) -> CacheType {
        self.inner.cache
    }

    /// Bytes of the cache of one full sequence.
    pub fn cache_bytes(&self) -> usize {
        let Inner { config, cache, context, .. } = &*self.inner;
        Cache::bytes_per_position(config, *cache) * context
    }

    /// Where its weights are kept.
    pub fn load(&self) -> Load {
        self.inner.load
    }

    /// Bytes of weights that decoding one token reads.
    pub fn bytes_per_token(&self) -> usize {
        self.inner.weights.bytes_per_token()
    }

    /// A new text of its own.
    ///
    /// # Errors
    /// When its cache is too large.
    pub fn session(&self) -> Result<Session, Error> {
        Session::new(self.clone())
    }

    /// An empty state for `sequences` sequences of [`Model::context`] positions each.
    ///
    /// # Errors
    /// When the cache is too large.
    pub fn state(&self, sequences: usize) -> Result<State, Error> {
        let config = self.inner.config.clone();
        let cache = Cache::new(&config, sequences, self.inner.context, self.inner.cache)?;
        Ok(State { cache, scratch: Scratch::default(), ropes: Ropes::new(&config), config })
    }

    /// Runs a batch of tokens and returns the wanted logits, `vocab` for each row that wants them, in
    /// the order of the rows. The positions join the state's cache; after an error they do not.
    ///
    /// Each row's result depends on its own sequence alone, bit for bit: not on the batch, the threads
    /// or the kernels.
    ///
    /// # Errors
    /// When a token, sequence or position is out of range, or a value stops being finite.
    pub fn forward<'a>(&self, state: &'a mut State, rows: &[Row]) -> Result<&'a [f32], Error> {
        self.forward_traced(state, rows, None)
    }

    /// [`Model::forward`], observed.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_traced<'a>(
        &self,
        state: &'a mut State,
        rows: &[Row],
        trace: Option<&mut Trace>,
    ) -> Result<&'a [f32], Error> {
        self.pass(state, rows, trace, true)?;
        Ok(&state.scratch.logits)
    }

    /// As [`Model::forward`], but returns what the head would be given: for each row that wants logits its
    /// last hidden state behind the final norm, `hidden` values.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_hidden(&self, state: &mut State, rows: &[Row]) -> Result<Vec<f32>, Error> {
        self.pass(state, rows, None, false)?;
        let states = state.scratch.h.chunks_exact(self.inner.config.hidden);
        let wanted = rows.iter().zip(states).filter(|(row, _)| row.logits);
        Ok(wanted.flat_map(|(_, state)| state).copied().collect())
    }

    /// A forward pass; what is wanted is left in the state's scratch.
    fn pass(
        &self,
        state: &mut State,
        rows: &[Row],
        trace: Option<&mut Trace>,
        head: bool,
    ) -> Result<(), Error> {
        let Inner { config, weights, stacks, cpu, pool, .. } = &*self.inner;
        let lengths = self.check(state, rows)?;
        let State { cache, scratch, ropes, .. } = state;
        ropes.grow(lengths.iter().copied().max().unwrap_or(0));
        let wanted = rows.iter().filter(|row| row.logits && head).count();
        scratch.resize(config, pool.threads(), rows.len(), wanted, weights.groups);
        let trace = trace.map(Mutex::new);
        let (layout, stored) = cache.parts();
        let pass = Forward {
            config,
            weights,
            stacks,
            ropes,
            isa: cpu.best(),
            rows,
            cache: layout,
            stored,
            scratch: scratch.parts(config, rows.len()),
            trace: trace.as_ref(),
            head,
            not_finite: AtomicBool::new(false),
        };
        pool.run(|worker| pass.run(worker));
        if pass.not_finite.load(Ordering::Relaxed) {
            return Err(Error::NotFinite { what: "a value inside the model" });
        }
        for (sequence, len) in lengths.into_iter().enumerate() {
            cache.set_len(sequence, len);
        }
        if let Some(trace) = trace {
            let trace = trace.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
            rows.iter().for_each(|row| trace.token(row.token));
            scratch.logits.chunks_exact(config.vocab).for_each(|row| trace.f32s("logits", row));
        }
        Ok(())
    }

    /// Checks a batch against the state; returns the sequences' lengths after it.
    fn check(&self, state: &State, rows: &[Row]) -> Result<Vec<usize>, Error> {
        let cache = &state.cache;
        let Inner { config, context, cache: of, .. } = &*self.inner;
        if (&state.config, cache.context(), cache.cache_type()) != (config, *context, *of) {
            return Err(Error::ForeignState);
        }
        let (sequences, context) = (cache.sequences(), cache.context());
        let mut lengths: Vec<usize> = (0..sequences).map(|s| cache.len(s)).collect();
        for &Row { sequence, position, token, .. } in rows {
            let vocab = self.inner.config.vocab;
            if token as usize >= vocab {
                return Err(Error::Token { token, vocab });
            }
            let next = lengths.get_mut(sequence).ok_or(Error::Sequence { sequence, sequences })?;
            if position != *next {
                return Err(Error::Position { sequence, position, next: *next });
            }
            if position >= context {
                return Err(Error::ContextFull { tokens: 1, used: context, context });
            }
            *next += 1;
        }
        Ok(lengths)
    }
}
