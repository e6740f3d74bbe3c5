//! Requests to servers that speak HTTP, and what their answers mean (the one user of reqwest).

pub(crate) mod grpc;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
pub(crate) use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use reqwest::{Client, ClientBuilder, Response, StatusCode};
use rustls::ClientConfig;

use super::deliver::Outcome;
use super::settings::{Auth, Settings};
use super::tls;

/// How much of an answer is read: its text goes into a log line and a partial success has a few hundred octets.
const ANSWER: usize = 16 << 10;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection is kept without a request. Servers and what stands before them close theirs after a minute.
const IDLE: Duration = Duration::from_secs(50);

/// A way to one or more servers, with the same credentials.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: Client,
}

/// What a server said.
#[derive(Debug)]
pub(crate) enum Answer {
    /// 2xx, with the body as far as it was read.
    Taken(Vec<u8>),
    /// It will never take this.
    Refused(String),
    /// It could not take it now.
    Again { reason: String, after: Option<Duration> },
}

impl Http {
    /// A client by these settings.
    ///
    /// # Errors
    /// A secret or a certificate cannot be read.
    pub(crate) fn new(settings: &Settings, urls: &[Url]) -> Result<Self, String> {
        Self::with(settings, urls, |builder, tls, _| builder.tls_backend_preconfigured(tls))
    }

    /// A client that speaks HTTP/2 and nothing else, as gRPC wants it.
    ///
    /// # Errors
    /// A secret or a certificate cannot be read.
    pub(crate) fn only_http_2(settings: &Settings, urls: &[Url]) -> Result<Self, String> {
        // A connection on which nothing comes back any more is given up while a call waits for its answer, so that the next
        // call has another one.
        let half = settings.timeout / 2;
        Self::with(settings, urls, |builder, mut tls, encrypted| {
            tls.alpn_protocols = vec![b"h2".to_vec()];
            let builder = builder
                .http2_prior_knowledge()
                .http2_keep_alive_interval(half)
                .http2_keep_alive_timeout(half)
                .tls_backend_preconfigured(tls);
            // Proxies take requests in clear as HTTP/1.
            if encrypted { builder } else { builder.no_proxy() }
        })
    }

    fn with(
        settings: &Settings,
        urls: &[Url],
        dress: impl FnOnce(ClientBuilder, ClientConfig, bool) -> ClientBuilder,
    ) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("distwatch/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &settings.headers {
            let name: HeaderName = name.parse().map_err(|_| format!("`{name}` is no name of a header"))?;
            headers.insert(name, value.parse().map_err(|_| "a header has a value that none can have".to_owned())?);
        }
        for (name, secret) in settings.secret_headers() {
            let name: HeaderName = name.parse().map_err(|_| format!("`{name}` is no name of a header"))?;
            let Some(text) = secret.read()? else { continue };
            headers.insert(name, sensitive(&text)?);
        }
        if let Some(value) = authorization(&settings.auth)? {
            headers.insert(AUTHORIZATION, value);
        }
        let encrypted = urls.iter().any(|url| url.scheme() == "https");
        let tls = if encrypted { Arc::unwrap_or_clone(tls::client(&settings.tls)?) } else { tls::none() };
        let builder = Client::builder()
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT.min(settings.timeout))
            .timeout(settings.timeout)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1);
        let client = dress(builder, tls, encrypted).build().map_err(|error| chain(&error))?;
        Ok(Self { client })
    }

    /// Sends a body and hears what the server says.
    pub(crate) async fn post(&self, url: &Url, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = self.client.post(url.clone()).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match request.send().await {
            Ok(response) => judge(response).await,
            Err(error) => Answer::Again { reason: chain(&error.without_url()), after: None },
        }
    }
}

impl Answer {
    /// What it means for so many records.
    pub(crate) fn outcome(self, records: usize) -> Outcome {
        match self {
            Self::Taken(_) => Outcome::DONE,
            Self::Refused(reason) => Outcome::refused(records, reason),
            Self::Again { reason, after } => Outcome::Retry { done: 0, refused: None, reason, after },
        }
    }
}

/// Reads an address of HTTP.
///
/// # Errors
/// What is wrong with it, and nothing of a secret that may be in it.
pub(crate) fn url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("it is no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("it does not begin with http:// or https:// and a host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user or a password; they belong in `user` and `password_file`".to_owned());
    }
    Ok(url)
}

/// The addresses of a sink, or the secret one.
pub(crate) fn urls(settings: &Settings) -> Result<Vec<Url>, String> {
    if let Some(secret) = settings.secret_url.read()? {
        return Ok(vec![url(&secret).map_err(|error| format!("the address in the secret is wrong: {error}"))?]);
    }
    settings.url.iter().map(|text| url(text)).collect()
}

/// Puts a path behind an address, unless that has one of its own.
pub(crate) fn with_path(mut url: Url, path: &str) -> Url {
    if url.path() == "/" {
        url.set_path(path);
    }
    url
}

fn authorization(auth: &Auth) -> Result<Option<HeaderValue>, String> {
    let text = match (auth.token.read()?, &auth.user) {
        (Some(token), _) => format!("Bearer {token}"),
        (None, Some(user)) => {
            let password = auth.password.read()?.unwrap_or_default();
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        }
        (None, None) => return Ok(None),
    };
    sensitive(&text).map(Some)
}

/// A value that nobody prints.
fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let mut value: HeaderValue = text.parse().map_err(|_| "the secret has characters that no header can have")?;
    value.set_sensitive(true);
    Ok(value)
}

async fn judge(mut response: Response) -> Answer {
    let status = response.status();
    let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let mut body = Vec::new();
    while body.len() < ANSWER {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) if status.is_success() => {
                // It said that it has taken it, but not to the end: whoever is in doubt asks again.
                return Answer::Again { reason: chain(&error.without_url()), after: None };
            }
            Err(_) => break,
        }
    }
    if status.is_success() {
        return Answer::Taken(body);
    }
    let text = String::from_utf8_lossy(&body);
    let reason = format!("{status}: {}", text.trim());
    if is_worth_repeating(status) {
        return Answer::Again { reason, after: wait.map(Duration::from_secs) };
    }
    Answer::Refused(reason)
}

/// Whether the same request may succeed later. Wrong credentials, a wrong path and a redirection are the way's fault and
/// not the records': these are kept until somebody has mended it.
fn is_worth_repeating(status: StatusCode) -> bool {
    !status.is_client_error()
        || matches!(
            status,
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::PROXY_AUTHENTICATION_REQUIRED
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_EARLY
                | StatusCode::TOO_MANY_REQUESTS
        )
}

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_and_holds_no_secret() {
        assert!(url("https://loki.example:3100/loki/api/v1/push").is_ok());
        for wrong in ["loki:3100", "ftp://x/", "http://", "https://me:hunter2@x/", "https://me@x/"] {
            assert!(!url(wrong).expect_err(wrong).contains("hunter2"));
        }
        assert_eq!(with_path(url("http://x:1").unwrap(), "/a").as_str(), "http://x:1/a");
        assert_eq!(with_path(url("http://x:1/b").unwrap(), "/a").as_str(), "http://x:1/b");
    }

    #[test]
    fn what_is_the_ways_fault_is_repeated_and_what_is_the_records_fault_is_not() {
        let again = [301, 401, 403, 404, 408, 429, 500, 502, 503, 504];
        let never = [400, 409, 413, 415, 422];
        let repeated = |code: &u16| is_worth_repeating(StatusCode::from_u16(*code).unwrap());
        assert!(again.iter().all(repeated));
        assert!(!never.iter().any(repeated));
    }
}
