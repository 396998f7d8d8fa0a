//! Who may ask: the key, other web sites' scripts, and the headers that every response carries.
//!
//! A server can be reached by every web page that is opened on its machine or, unless it listens on
//! loopback alone, in its network. So requests with the `Origin` of another site are refused unless it was
//! allowed. A site may also point its own name here (DNS rebinding) and so pass for ours; then `Host` is
//! that name. It must be an address or a `localhost` unless there is a key: such a page does not have it, and
//! what this server's own page keeps under another name is hidden from it.

use crate::app::App;
use crate::error::ApiError;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The rules.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    /// The key that clients must send.
    pub(crate) key: Option<String>,
    /// The other origin whose scripts may ask; `*` for every one.
    pub(crate) cors: Option<String>,
    /// Whether the server listens on a loopback address.
    pub(crate) loopback: bool,
}

/// Paths that need no key: the page, which asks for it, and what supervisors look at.
const OPEN: [&str; 5] = ["/", "/app.js", "/style.css", "/favicon.svg", "/health"];

/// The most bytes of a preflight's list of headers.
const MOST_ASKED: usize = 2048;

/// What keeps a page of ours from being misused by others.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Lets a request through to its handler, or not.
pub(crate) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let guard = &app.guard;
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.as_ref().filter(|origin| guard.shares_with(origin)).cloned();
    let preflight = request.method() == Method::OPTIONS && allowed.is_some();
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response = match guard.admits(request.headers(), request.uri().path(), preflight) {
        Err(error) => error.response_at(request.uri().path()),
        Ok(()) if preflight => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        let seen = HeaderValue::from_static("retry-after");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, seen);
        if preflight {
            // `*` would not cover `authorization`, and clients send headers of their own.
            let usual = HeaderValue::from_static("authorization, content-type");
            let may = asked.filter(are_names).unwrap_or(usual);
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, may);
            let methods = HeaderValue::from_static("GET, POST");
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
    response
}

impl Guard {
    fn admits(&self, headers: &HeaderMap, path: &str, preflight: bool) -> Result<(), ApiError> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
        if self.key.is_none() && !host.is_empty() && !is_local(host) {
            let way = if self.loopback { "localhost" } else { "its address" };
            let message = format!(
                "`{host}` is not a name of this server; use {way}, or start it with --api-key"
            );
            return Err(ApiError::new(StatusCode::FORBIDDEN, message));
        }
        if let Some(origin) = headers.get(header::ORIGIN)
            && !self.shares_with(origin)
            && !is_same(origin, host)
        {
            let message =
                "pages of other origins may not use this server; --cors ORIGIN allows one";
            return Err(ApiError::new(StatusCode::FORBIDDEN, message));
        }
        if preflight || OPEN.contains(&path) {
            return Ok(());
        }
        let Some(key) = &self.key else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(bearer).unwrap_or(b"");
        if key.as_bytes().ct_eq(given).into() {
            return Ok(());
        }
        let message = "a key is needed: send it as `Authorization: Bearer KEY`";
        Err(ApiError::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key"))
    }

    fn shares_with(&self, origin: &HeaderValue) -> bool {
        self.cors.as_deref().is_some_and(|cors| cors == "*" || cors.as_bytes() == origin.as_bytes())
    }
}

/// The key in an `Authorization`, whose scheme may be written in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key)
}

/// Whether a preflight asks for a list of headers, and for no more than a client has.
fn are_names(asked: &HeaderValue) -> bool {
    let is_name = |name: &str| HeaderName::from_bytes(name.trim().as_bytes()).is_ok();
    asked.len() <= MOST_ASKED && asked.to_str().is_ok_and(|names| names.split(',').all(is_name))
}

/// Whether a `Host` is this machine's own: an address or a `localhost`.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

/// Whether an `Origin` is the server's own.
fn is_same(origin: &HeaderValue, host: &str) -> bool {
    let origin = origin.to_str().unwrap_or("");
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| !host.is_empty() && authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let (key, cors) = (Some("secret".to_owned()), Some("https://chat.example".to_owned()));
        Guard { key, cors, loopback: true }
    }

    /// The status with which a request is refused.
    fn refused(guard: &Guard, path: &str, headers: &[(HeaderName, &str)]) -> Option<u16> {
        let own = |(name, value): &(HeaderName, &str)| (name.clone(), value.parse().unwrap());
        let headers: HeaderMap = headers.iter().map(own).collect();
        guard.admits(&headers, path, false).err().map(|error| error.status.as_u16())
    }

    #[test]
    fn the_key_is_needed_where_there_is_something_to_guard() {
        fn key(value: &str) -> [(HeaderName, &str); 1] {
            [(header::AUTHORIZATION, value)]
        }
        assert_eq!(refused(&guard(), "/v1/models", &[]), Some(401));
        assert_eq!(refused(&guard(), "/v1/models", &key("Bearer wrong")), Some(401));
        assert_eq!(refused(&guard(), "/v1/models", &key("Bearer secret2")), Some(401));
        assert_eq!(refused(&guard(), "/v1/models", &key("secret")), Some(401));
        assert_eq!(refused(&guard(), "/v1/models", &key("Basic secret")), Some(401));
        assert_eq!(refused(&guard(), "/v1/models", &key("Bear")), Some(401));
        for scheme in ["Bearer", "bearer", "BEARER"] {
            assert_eq!(refused(&guard(), "/v1/models", &key(&format!("{scheme} secret"))), None);
        }
        assert_eq!(refused(&guard(), "/health", &[]), None);
        assert_eq!(refused(&Guard { key: None, ..guard() }, "/v1/models", &[]), None);
    }

    #[test]
    fn other_sites_are_kept_out() {
        let from = |origin, host| {
            let guard = Guard { key: None, ..guard() };
            refused(&guard, "/v1/models", &[(header::ORIGIN, origin), (header::HOST, host)])
        };
        assert_eq!(from("http://localhost:8080", "localhost:8080"), None);
        assert_eq!(from("https://chat.example", "localhost:8080"), None);
        assert_eq!(from("https://evil.example", "localhost:8080"), Some(403));
        assert_eq!(from("null", "localhost:8080"), Some(403));
        assert_eq!(from("http://evil.example", "evil.example"), Some(403));
    }

    #[test]
    fn names_that_others_may_point_here_are_refused() {
        let host = |guard: &Guard, host| refused(guard, "/health", &[(header::HOST, host)]);
        let own = Guard { key: None, ..guard() };
        for name in ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "a.localhost"] {
            assert_eq!(host(&own, name), None, "{name}");
        }
        assert_eq!(host(&own, "rebound.example:8080"), Some(403));
        let open = Guard { loopback: false, ..own };
        assert_eq!(host(&open, "rebound.example:8080"), Some(403));
        assert_eq!(host(&open, "192.168.1.2:8080"), None);
        assert_eq!(host(&open, "[fd00::2]:8080"), None);
    }

    #[test]
    fn behind_a_proxy_that_keeps_the_name_the_key_is_what_counts() {
        for loopback in [true, false] {
            let guard = Guard { loopback, ..guard() };
            let ask = |key, origin| {
                let host = (header::HOST, "models.example");
                let headers = [host, (header::AUTHORIZATION, key), (header::ORIGIN, origin)];
                refused(&guard, "/v1/models", &headers)
            };
            assert_eq!(ask("Bearer secret", "https://models.example"), None);
            assert_eq!(ask("", "https://models.example"), Some(401));
            assert_eq!(ask("Bearer secret", "https://evil.example"), Some(403));
        }
    }

    #[test]
    fn a_preflight_may_ask_for_any_names_but_not_for_what_is_none() {
        let names = |text: &[u8]| are_names(&HeaderValue::from_bytes(text).unwrap());
        assert!(names(b"authorization,content-type,x-stainless-os"));
        assert!(names(b"Authorization, X-Stainless-Retry-Count"));
        assert!(!names(b""));
        assert!(!names(b"content-type, a b"));
        assert!(!names(b"caf\xc3\xa9"));
        assert!(!names(&b"x-a,".repeat(MOST_ASKED)));
    }
}
