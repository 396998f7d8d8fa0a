//! A server from its address to its end.

use crate::app::{About, App, now, router};
use crate::digest;
use crate::embeddings::Embeddings;
use crate::engine::{Engine, EngineOptions, StartError};
use crate::grammar::Grammars;
use crate::guard::Guard;
use crate::limits::Limits;
use crate::listen;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use trilut_presets::Machine;
use trilut_runtime::Model;
use trilut_runtime::chat::{ChatError, ChatTemplate};
use trilut_runtime::embedding::Pooling;
use trilut_runtime::gguf::{Gguf, TensorInfo};

/// How often the caller is asked whether to end.
const POLL: Duration = Duration::from_millis(100);

/// What is served.
#[derive(Debug)]
pub struct Served {
    model: Model,
    template: Option<ChatTemplate>,
    name: String,
    about: About,
    pooling: Option<Pooling>,
}

impl Served {
    /// A model that was loaded from an open file, under the name by which clients ask for it.
    ///
    /// # Errors
    /// When the file's chat template cannot be used, or its kind of pooling is not known.
    pub fn new(gguf: &Gguf, model: Model, name: impl Into<String>) -> Result<Self, ChatError> {
        let about = About {
            architecture: gguf.architecture()?.to_owned(),
            bytes: gguf.file_len(),
            digest: digest::of(gguf),
            parameters: gguf.tensors().iter().map(TensorInfo::elements).sum(),
        };
        let template = ChatTemplate::from_gguf(gguf)?;
        let pooling = Pooling::from_gguf(gguf)?;
        // The vocabulary is large and is not looked at again.
        gguf.release_metadata();
        Ok(Self { model, template, name: name.into(), about, pooling })
    }

    /// The same with embeddings, made so, whatever the file says of them.
    #[must_use]
    pub fn with_embeddings(self, pooling: Pooling) -> Self {
        Self { pooling: Some(pooling), ..self }
    }

    /// Whether there can be chats: the file carries a chat template.
    pub fn can_chat(&self) -> bool {
        self.template.is_some()
    }
}

/// How it is served.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// How the engine shares its time.
    pub engine: EngineOptions,
    /// What requests may ask for.
    pub limits: Limits,
    /// The key that clients must send as a bearer token. Without one, the `Host` of requests must be an
    /// address or a `localhost`.
    pub api_key: Option<String>,
    /// Another origin whose web pages may ask; `*` for every one.
    pub cors: Option<String>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The engine does not start.
    #[error("the engine cannot be started")]
    Engine(#[from] StartError),
    /// The address cannot be used.
    #[error("cannot listen on {address}")]
    Address {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The system gives no threads or signals.
    #[error("the server cannot be started")]
    System(#[from] io::Error),
    /// The engine's thread has ended in the middle of its work, which was reported.
    #[error("the engine has failed")]
    Failed,
}

impl ServeError {
    /// A helpful next step, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(StartError::Model(error)) => match error {
                trilut_runtime::Error::CacheSize { .. } => {
                    Some("lower --parallel, or the context with --ctx".to_owned())
                }
                error => error.hint(),
            },
            Self::Address { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another server may be running there: choose a --port, 0 for any".to_owned())
            }
            _ => None,
        }
    }
}

/// Why a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The caller said so.
    Asked,
    /// The system asked it to terminate.
    Terminated,
}

/// A server that has its address and is about to serve.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Starts the engine and takes the address, `host:port`; port 0 is any that is free.
    ///
    /// # Errors
    /// When the address cannot be used or the engine does not start.
    pub fn bind(
        served: Served,
        host: &str,
        port: u16,
        options: ServerOptions,
    ) -> Result<Self, ServeError> {
        let refused = |source| ServeError::Address { address: format!("{host}:{port}"), source };
        let listener = TcpListener::bind((host, port)).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        listener.set_nonblocking(true)?;
        let ServerOptions { engine, limits, api_key, cors } = options;
        let Served { model, template, name, about, pooling } = served;
        let loopback = address.ip().to_canonical().is_loopback();
        let guard = Guard { key: api_key, cors, loopback };
        let embeddings = pooling.map(|pooling| Embeddings::new(model.clone(), pooling, &engine));
        let embeddings = embeddings.transpose().map_err(StartError::from)?;
        let app = App {
            embeddings,
            engine: Arc::new(Engine::start(model.clone(), engine)?),
            grammars: Grammars::new(model.clone()),
            model,
            template,
            name,
            large_bodies: Semaphore::new(limits.large_bodies),
            limits,
            guard,
            warned: AtomicBool::new(false),
            started: Instant::now(),
            created: now(),
            about,
            machine: Box::new(Machine::detect()),
        };
        Ok(Self { app: Arc::new(app), listener, address })
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The engine, which ends with the server.
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.app.engine)
    }

    /// Serves until `end` says so or the system asks to terminate. Then no more requests are taken, those
    /// that wait are refused, and those at work get [`Limits::grace`] to finish.
    ///
    /// # Errors
    /// When the system gives no threads or signals, or the engine fails: nothing more could be served.
    pub fn run(self, mut end: impl FnMut() -> bool) -> Result<Ended, ServeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(4)
            .thread_name("http")
            .enable_all()
            .build()?;
        let ended = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            let (stop, stopped) = watch::channel(false);
            let router = router(Arc::clone(&self.app));
            let limits = self.app.limits.clone();
            let serving = tokio::spawn(listen::serve(listener, router, limits, stopped));
            let mut terminated = terminated()?;
            let ended = loop {
                tokio::select! {
                    () = &mut terminated => break Ok(Ended::Terminated),
                    () = tokio::time::sleep(POLL) => {
                        if self.app.engine.has_failed() {
                            break Err(ServeError::Failed);
                        }
                        if end() {
                            break Ok(Ended::Asked);
                        }
                    }
                }
            };
            self.app.engine.stop(self.app.limits.grace);
            let _ = stop.send(true);
            let _ = serving.await;
            ended
        })?;
        self.app.engine.stop(Duration::ZERO);
        self.app.engine.join();
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(ended)
    }
}

/// Comes when the system asks the process to terminate.
#[cfg(unix)]
fn terminated() -> io::Result<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signal = signal(SignalKind::terminate())?;
    Ok(Box::pin(async move {
        signal.recv().await;
    }))
}

/// Never comes: Ctrl-C is what ends servers here, and that is the caller's.
#[cfg(not(unix))]
fn terminated() -> io::Result<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>> {
    Ok(Box::pin(std::future::pending()))
}
