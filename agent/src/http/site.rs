//! What there is to ask for, who may, and who answers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use http::header::{ACCEPT, ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::access::Door;
use super::answer::{self, Body, Problem};
use super::api::{self, List};
use super::counts::Counts;
use super::events::Events;
use super::limits::{ANSWER_PATIENCE, LISTS};
use super::metrics::{self, Facts, Format, Reload};
use super::page;
use super::pictures::{Ask, Pictures, Shown};
use super::query::Query;
use super::recent::Recent;
use super::settings::Metrics;

/// What a client was told last, when it comes back to a stream.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// In how many seconds to ask again, where there is no answer now.
const LATER: HeaderValue = HeaderValue::from_static("5");

/// Where answers come from.
pub struct Sources {
    /// Asks the capture thread for a picture.
    pub ask: Ask,
    /// The last records.
    pub recent: Arc<Recent>,
    /// How the configuration was loaded last; whoever loads it keeps this.
    pub reload: Arc<Mutex<Reload>>,
    /// What the server counts of itself.
    pub counts: Arc<Counts>,
    /// What metrics tell.
    pub metrics: Metrics,
    /// The name of this host in records.
    pub host: String,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) counts: Arc<Counts>,
    door: RwLock<Arc<Door>>,
    pictures: Pictures,
    events: Events,
    reload: Arc<Mutex<Reload>>,
    metrics: Metrics,
    host: Arc<str>,
    lists: Arc<Semaphore>,
}

impl Site {
    pub(super) fn new(door: Door, sources: Sources, stopping: watch::Receiver<bool>) -> Self {
        let Sources { ask, recent, reload, counts, metrics, host } = sources;
        let events = Events::new(Arc::clone(&recent), Arc::clone(&counts), stopping);
        let pictures = Pictures::new(ask, recent);
        Self {
            counts,
            door: RwLock::new(Arc::new(door)),
            pictures,
            events,
            reload,
            metrics,
            host: host.into(),
            lists: Arc::new(Semaphore::new(LISTS)),
        }
    }

    /// The rules for who comes in now.
    pub(super) fn door(&self) -> Arc<Door> {
        Arc::clone(&self.door.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Other rules from now on; connections that are there stay, their next requests are held to these. Streams of events
    /// end, and who may still come in comes back.
    pub(super) fn set_door(&self, door: Door) {
        *self.door.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(door);
        self.events.end_streams();
    }

    /// Answers a request.
    pub(super) async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        let response = match timeout(ANSWER_PATIENCE, self.answer(&request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(problem)) => refused(problem),
            Err(_) => refused(Problem::unavailable("the answer took too long")),
        };
        self.counts.answered(response.status());
        response
    }

    async fn answer(&self, request: &Request<Incoming>) -> Result<Response<Body>, Problem> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered"));
        }
        if !request.body().is_end_stream() {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "a request has no body here"));
        }
        let door = self.door();
        door.check_host(request)?;
        let path = request.uri().path();
        // What says nothing of the cluster needs no token.
        match path {
            "/healthz" => return Ok(answer::text(StatusCode::OK, "ok")),
            "/readyz" => return Ok(self.ready().await),
            _ => {}
        }
        if let Some(response) = page::respond(path, request.headers()) {
            return Ok(response);
        }
        door.check_token(request)?;
        let query = request.uri().query().unwrap_or_default();
        match path {
            "/metrics" => self.tell_metrics(query, request).await,
            "/api/v1/alerts" => self.tell_list(List::Alerts, query).await,
            "/api/v1/nodes" => self.tell_list(List::Nodes, query).await,
            "/api/v1/links" => self.tell_list(List::Links, query).await,
            "/api/v1/status" => self.tell_status(query).await,
            "/api/v1/rules" => {
                Query::read(query, &[])?;
                answer::json(&api::rules(&self.shown().await?.picture.rules))
            }
            "/api/v1/events" => {
                let last_id = request.headers().get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or_default());
                self.events.respond(query, last_id)
            }
            _ => Err(Problem::new(StatusCode::NOT_FOUND, "there is nothing here; docs/http.md says what there is")),
        }
    }

    /// Whether packets are captured, and the thread that does it answers.
    async fn ready(&self) -> Response<Body> {
        match self.pictures.now().await {
            Ok(shown) if shown.picture.status.state == "capturing" => answer::text(StatusCode::OK, "ready"),
            Ok(shown) => {
                answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}", shown.picture.status.state))
            }
            Err(silent) => answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {silent}")),
        }
    }

    async fn shown(&self) -> Result<Shown, Problem> {
        self.pictures.now().await.map_err(|silent| Problem::unavailable(silent.to_string()))
    }

    async fn tell_metrics(&self, query: &str, request: &Request<Incoming>) -> Result<Response<Body>, Problem> {
        Query::read(query, &[])?;
        let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
        let picture = self.shown().await?.picture;
        let reload = *self.reload.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = Facts { picture: &picture, reload, counts: &self.counts, per_link: self.metrics.per_link };
        Ok(answer::whole(StatusCode::OK, format.content_type(), metrics::text(&facts, format)))
    }

    async fn tell_list(&self, list: List, query: &str) -> Result<Response<Body>, Problem> {
        let Ok(place) = Arc::clone(&self.lists).try_acquire_owned() else {
            return Err(Problem::unavailable(format!("{LISTS} lists are under way, which is all there can be")));
        };
        let query = list.read(query)?;
        let shown = match query.text("at") {
            Some(time) => self.pictures.of(time).ok_or_else(|| {
                Problem::new(
                    StatusCode::GONE,
                    "the list of that time is not kept any more: ask for it anew, without at",
                )
            })?,
            None => self.shown().await?,
        };
        let part = list.part(&query, &shown.picture)?;
        if part.has_rest() || query.text("at").is_some() {
            self.pictures.keep(&shown);
        }
        Ok(part.respond(&shown, &self.host, place))
    }

    async fn tell_status(&self, query: &str) -> Result<Response<Body>, Problem> {
        Query::read(query, &[])?;
        let picture = self.shown().await?.picture;
        answer::json(&picture.status)
    }
}

/// A problem, with what its status asks for in the head.
fn refused(problem: Problem) -> Response<Body> {
    let mut response = problem.into_response();
    let status = response.status();
    let headers = response.headers_mut();
    match status {
        StatusCode::METHOD_NOT_ALLOWED => headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD")),
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"distwatch\""))
        }
        StatusCode::SERVICE_UNAVAILABLE => headers.insert(RETRY_AFTER, LATER),
        _ => None,
    };
    if matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::PAYLOAD_TOO_LARGE) {
        // There may be a body, which is not read.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
