//! Answers: their headers, which every one has, and what is wrong as a problem that programs can read (RFC 9457).

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;
use serde_json::json;

/// What is sent: one piece, or pieces as they come.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Nothing but what this server itself serves, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// On every answer.
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// An answer in one piece.
pub(super) fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    in_pieces(status, content_type, Full::new(body.into()).boxed_unsync())
}

/// An answer whose pieces come one by one.
pub(super) fn in_pieces(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A sentence for whoever looks at it by hand.
pub(super) fn text(status: StatusCode, words: impl Into<String>) -> Response<Body> {
    let mut words: String = words.into();
    words.push('\n');
    whole(status, "text/plain; charset=utf-8", words)
}

/// A value, and a line feed for whoever looks at it by hand.
pub(super) fn json(value: &impl Serialize) -> Result<Response<Body>, Problem> {
    let mut text = serde_json::to_vec(value).map_err(|error| Problem::unavailable(error.to_string()))?;
    text.push(b'\n');
    Ok(whole(StatusCode::OK, "application/json", text))
}

/// Something that cannot be answered, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// What the answer's first line says.
    pub(super) status: StatusCode,
    /// One sentence.
    pub(super) detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    /// The client is to ask differently.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// The client is to ask again later.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let title = self.status.canonical_reason().unwrap_or_default();
        let problem = json!({
            "type": "about:blank",
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        whole(self.status, "application/problem+json", problem.to_string())
    }
}
