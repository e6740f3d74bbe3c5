//! Logs: to standard error, so that they never mix with data.

use std::io;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::cli::Globals;

/// The variable that holds a filter.
const VARIABLE: &str = "DISTWATCH_LOG";

/// Starts logging: warnings, more or less by flag, or what the environment asks for where no flag is given.
pub fn start(globals: &Globals) {
    let asked = std::env::var(VARIABLE).ok();
    let (filter, mistake) = match filter(globals, asked.as_deref()) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("warn"), Some(error)),
    };
    let started = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(globals.color_stderr())
        // Where standard error is closed there is nobody to tell, and telling it anyway would be a panic.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .try_init();
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    if let Some(error) = mistake {
        tracing::warn!(%error, "{VARIABLE} is not a filter; warnings are logged");
    }
}

fn filter(globals: &Globals, variable: Option<&str>) -> Result<EnvFilter, ParseError> {
    let level = match (globals.quiet, globals.verbose) {
        (true, _) => Level::ERROR,
        (false, 1) => Level::INFO,
        (false, 2) => Level::DEBUG,
        (false, 3..) => Level::TRACE,
        (false, 0) => match variable.filter(|value| !value.trim().is_empty()) {
            Some(variable) => return EnvFilter::try_new(variable),
            None => Level::WARN,
        },
    };
    EnvFilter::try_new(level.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(verbose: u8, quiet: bool, variable: Option<&str>) -> Option<String> {
        let globals = Globals { verbose, quiet, ..Globals::default() };
        filter(&globals, variable).ok().map(|filter| filter.to_string().to_lowercase())
    }

    #[test]
    fn the_flag_goes_over_the_environment() {
        assert_eq!(chosen(0, false, None).as_deref(), Some("warn"));
        assert_eq!(chosen(0, false, Some("")).as_deref(), Some("warn"));
        assert_eq!(chosen(0, false, Some("debug")).as_deref(), Some("debug"));
        assert_eq!(chosen(1, false, Some("trace")).as_deref(), Some("info"));
        assert_eq!(chosen(2, false, None).as_deref(), Some("debug"));
        assert_eq!(chosen(0, true, Some("trace")).as_deref(), Some("error"));
    }

    #[test]
    fn a_filter_that_is_none_is_a_mistake() {
        assert_eq!(chosen(0, false, Some("distwatch=loudly")), None);
    }
}
