//! The dashboards, rules and configurations that are shipped for Grafana, Prometheus and Alertmanager.
//!
//! What Grafana's dashboard-linter asks for is asked here; types and grammars are checked by `cargo xtask dashboards`.

mod contract;
mod page;
mod panels;
mod query;
mod tools;
