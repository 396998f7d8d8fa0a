//! Connections: accepted up to a number, with limits on how long a client may keep us waiting, and closed
//! in order when the server ends.

use crate::engine::Client;
use crate::limits::Limits;
use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep};
use tower::ServiceExt;

/// The address that a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(IpAddr);

impl Peer {
    /// As the engine's queue sees it.
    pub(crate) fn client(self) -> Client {
        Some(self.0)
    }
}

/// Serves connections until `ended` is true; then those at work are finished.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    ended: watch::Receiver<bool>,
) {
    let connections = limits.connections.get();
    let places = Arc::new(Semaphore::new(connections.into()));
    let mut until = ended.clone();
    let until = async move { until.wait_for(|ended| *ended).await.map(drop) };
    tokio::pin!(until);
    loop {
        let place = tokio::select! {
            _ = &mut until => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            _ = &mut until => break,
            accepted = listener.accept() => accepted,
        };
        let (Ok(place), Ok((stream, address))) = (place, accepted) else {
            // Too many open files, perhaps: connections that end will help.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (router, limits, ended) = (router.clone(), limits.clone(), ended.clone());
        tokio::spawn(async move {
            connection(stream, Peer(address.ip()), router, &limits, ended).await;
            drop(place);
        });
    }
    drop(listener);
    // Everybody has a place again when nobody holds one.
    let all = places.acquire_many(connections.into());
    let _ = tokio::time::timeout(limits.grace + Duration::from_secs(5), all).await;
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    limits: &Limits,
    mut ended: watch::Receiver<bool>,
) {
    // Streamed tokens are small and should not wait for each other.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    });
    let io = TokioIo::new(Impatient::new(stream, limits.write_time));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(64 << 10)
        .serve_connection(io, service);
    tokio::pin!(connection);
    // How a connection fails is its client's affair.
    tokio::select! {
        _ = &mut connection => return,
        _ = ended.wait_for(|ended| *ended) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// A stream whose writes fail when the other side takes nothing for too long.
struct Impatient {
    stream: TcpStream,
    limit: Duration,
    /// Runs while a write waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(stream: TcpStream, limit: Duration) -> Self {
        Self { stream, limit, timer: None }
    }

    /// Watches the time of a write that waits.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.timer = None;
            return outcome;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(context));
        timer.as_mut().reset(Instant::now() + limit);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
