//! The page at `/`, and the files that it is made of: they are part of the program, and say nothing about the cluster, so that
//! whoever may connect gets them; what it shows, it asks for with the token.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, Response, StatusCode};

use super::answer::{self, Body};

/// A file of the page.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    content: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! asset {
    ($path:literal, $file:literal, $content_type:expr) => {
        Asset {
            path: $path,
            content_type: $content_type,
            content: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/page/", $file)),
        }
    };
}

static ASSETS: &[Asset] = &[
    asset!("/", "index.html", HTML),
    asset!("/api.js", "api.js", JAVASCRIPT),
    asset!("/app.js", "app.js", JAVASCRIPT),
    asset!("/dom.js", "dom.js", JAVASCRIPT),
    asset!("/favicon.svg", "favicon.svg", SVG),
    asset!("/feed.js", "feed.js", JAVASCRIPT),
    asset!("/graph.js", "graph.js", JAVASCRIPT),
    asset!("/layout.js", "layout.js", JAVASCRIPT),
    asset!("/sensor.js", "sensor.js", JAVASCRIPT),
    asset!("/start.js", "start.js", JAVASCRIPT),
    asset!("/store.js", "store.js", JAVASCRIPT),
    asset!("/style.css", "style.css", CSS),
    asset!("/tables.js", "tables.js", JAVASCRIPT),
];

/// What each file is known by; another build may have others.
static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| ASSETS.iter().map(|asset| tag(asset.content)).collect());

/// The file at a path, or word that the client already has it.
pub(super) fn respond(path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let path = if path == "/index.html" { "/" } else { path };
    let place = ASSETS.iter().position(|asset| asset.path == path)?;
    let (asset, tag) = (ASSETS.get(place)?, TAGS.get(place)?);
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|list| list.split(',')).any(|known| known.trim().trim_start_matches("W/") == tag);
    let mut response = if is_known {
        answer::whole(StatusCode::NOT_MODIFIED, asset.content_type, Bytes::new())
    } else {
        answer::whole(StatusCode::OK, asset.content_type, asset.content)
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, tag.clone());
    // It is asked every time whether it is still the same, so that a new version of the program has its own page.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(response)
}

fn tag(content: &[u8]) -> HeaderValue {
    let digest = ring::digest::digest(&ring::digest::SHA256, content);
    let start: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::try_from(format!("\"{start}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_page_is_served_and_refers_to_no_other_place() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/page");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let response = respond(&format!("/{name}"), &HeaderMap::new());
            assert_eq!(response.map(|response| response.status()), Some(StatusCode::OK), "{name}");
        }
        for asset in ASSETS {
            let text = String::from_utf8_lossy(asset.content);
            let foreign = text.match_indices("://").map(|(place, _)| &text[place.saturating_sub(10)..]);
            let foreign: Vec<&str> = foreign.filter(|text| !text.contains("://www.w3.org/")).collect();
            assert!(foreign.is_empty(), "{}: {foreign:?}", asset.path);
        }
    }

    #[test]
    fn a_client_that_has_the_file_is_not_sent_it_again() {
        let tag = respond("/", &HeaderMap::new()).unwrap().headers()[ETAG].clone();
        let asking = |tags: &str| {
            let headers = [(IF_NONE_MATCH, tags.parse().unwrap())].into_iter().collect();
            respond("/", &headers).unwrap().status()
        };
        assert_eq!(asking(tag.to_str().unwrap()), StatusCode::NOT_MODIFIED);
        assert_eq!(asking(&format!("\"x\", W/{}", tag.to_str().unwrap())), StatusCode::NOT_MODIFIED);
        assert_eq!(asking("\"x\""), StatusCode::OK);
        assert!(respond("/etc/passwd", &HeaderMap::new()).is_none() && respond("//", &HeaderMap::new()).is_none());
    }
}
