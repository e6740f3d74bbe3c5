//! `webhook`: requests to anything, with a body of one's own and a signature.
//!
//! Each request has the headers of the Standard Webhooks specification: `webhook-id`, the same for every attempt, so
//! that a receiver can tell repeats; `webhook-timestamp`; and with a secret `webhook-signature`, `v1,` and the base64 of
//! HMAC-SHA256 over `id.timestamp.body`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use super::deliver::{Batch, Deliver, Entry, Outcome, Sending};
use super::format::render;
use super::http::{self, Http, Url};
use super::settings::{Format, Settings};
use super::status::now;
use super::template::{Escape, Template};
use super::{Context, Kind};

pub(super) const KIND: Kind = Kind {
    name: "webhook",
    help: "a webhook: a request for each batch of records, or for each record with a body of one's own",
    only_alerts: false,
    alerts_unless_asked: true,
    open,
};

struct Webhook {
    http: Http,
    url: Url,
    format: Format,
    batch: Batch,
    body: Option<Template>,
    headers: Vec<(String, Template)>,
    content_type: String,
    escape: Escape,
    key: Option<hmac::Key>,
}

fn open(settings: &Settings, _: &Context<'_>) -> Result<Box<dyn Deliver>, String> {
    let mut urls = http::urls(settings)?;
    // Headers have parts of records in them, so they are made for each request.
    let bare = Settings { headers: Default::default(), ..settings.clone() };
    let http = Http::new(&bare, &urls)?;
    let url = urls.pop().ok_or("it has no url")?;
    let body = settings.webhook.body.as_deref().map(Template::parse).transpose()?;
    let mut headers = Vec::new();
    for (name, value) in &settings.headers {
        headers.push((name.clone(), Template::parse(value)?));
    }
    // Parts of a record can only be those of one record.
    let alone = body.is_some() || headers.iter().any(|(_, value)| !value.is_fixed());
    let records = if alone { 1 } else { settings.batch_records.unwrap_or(100) };
    let batch = Batch { records, bytes: 512 << 10, wait: settings.batch_wait.unwrap_or_default() };
    let own = settings.webhook.content_type.clone();
    let content_type = own.unwrap_or_else(|| match alone {
        true => "application/json".to_owned(),
        false => "application/x-ndjson".to_owned(),
    });
    let escape = if content_type.contains("json") { Escape::Json } else { Escape::Plain };
    let key = settings.webhook.secret.read()?.map(|secret| key(&secret)).transpose()?;
    let format = settings.format;
    Ok(Box::new(Webhook { http, url, format, batch, body, headers, content_type, escape, key }))
}

impl Deliver for Webhook {
    fn batch(&self) -> Batch {
        self.batch
    }

    fn send<'a>(&'a mut self, batch: &'a [Entry]) -> Sending<'a> {
        Box::pin(async move {
            let Some(first) = batch.first() else { return Outcome::DONE };
            let body = self.body(batch);
            let id = id(batch);
            let timestamp = (now().as_nanos() / 1_000_000_000).to_string();
            let mut headers = vec![
                ("content-type".to_owned(), self.content_type.clone()),
                ("webhook-id".to_owned(), id.clone()),
                ("webhook-timestamp".to_owned(), timestamp.clone()),
            ];
            if let Some(key) = &self.key {
                headers.push(("webhook-signature".to_owned(), signature(key, &id, &timestamp, &body)));
            }
            if !self.headers.is_empty() {
                let record = first.json();
                let own = self.headers.iter().map(|(name, value)| (name.clone(), value.fill(&record, Escape::Header)));
                headers.extend(own);
            }
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            self.http.post(&self.url, &headers, body).await.outcome(batch.len())
        })
    }
}

impl Webhook {
    fn body(&self, batch: &[Entry]) -> Vec<u8> {
        if let (Some(template), Some(entry)) = (&self.body, batch.first()) {
            let record = serde_json::from_slice(&render(entry, self.format)).unwrap_or_default();
            return template.fill(&record, self.escape).into_bytes();
        }
        let mut body = Vec::new();
        for entry in batch {
            body.extend_from_slice(&render(entry, self.format));
            body.push(b'\n');
        }
        body
    }
}

/// The key of the signature: the text as it stands or, with `whsec_` before it, the octets of which it is the base64.
fn key(secret: &str) -> Result<hmac::Key, String> {
    let decode =
        |text| STANDARD.decode(text).map_err(|_| "the secret begins with whsec_, but no base64 follows".to_owned());
    let octets = secret.strip_prefix("whsec_").map_or_else(|| Ok(secret.as_bytes().to_vec()), decode)?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &octets))
}

/// The same for the same records, also after a restart.
fn id(batch: &[Entry]) -> String {
    let mut hash = crc32fast::Hasher::new();
    batch.iter().for_each(|entry| hash.update(&entry.line));
    let (segment, offset) = batch.first().and_then(|entry| entry.id).unwrap_or_default();
    format!("msg_{segment}_{offset}_{}_{:08x}", batch.len(), hash.finalize())
}

fn signature(key: &hmac::Key, id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    format!("v1,{}", STANDARD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::super::format::testing::entries;
    use super::*;

    #[test]
    fn the_signature_is_hmac_sha256_over_id_time_and_body() {
        // Made by `printf '%s' 'msg_1.1614265330.{"test": 2432232314}' | openssl dgst -sha256 -hmac key -binary | base64`.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let signed = signature(&key, "msg_1", "1614265330", br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,JYEBfyq5bxCpG1AwdnAXovrjhgNdJUQo9x0/izmGveQ=");
    }

    #[test]
    fn a_secret_of_the_standard_webhooks_specification_is_base64_after_its_prefix() {
        let sign = |secret| signature(&key(secret).unwrap(), "msg_1", "1614265330", b"{}");
        assert_eq!(sign("whsec_a2V5"), sign("key"));
        assert!(!key("whsec_?").unwrap_err().contains('?'));
    }

    #[test]
    fn an_id_is_the_same_for_every_attempt_and_another_for_other_records() {
        let entries = entries();
        assert_eq!(id(&entries[..2]), id(&entries[..2]));
        assert_ne!(id(&entries[..2]), id(&entries[..1]));
        assert_ne!(id(&entries[..1]), id(&entries[1..2]));
    }
}
