//! The daemon against real nodes, a file for each behaviour. Every scenario is watched by both back ends.

mod attacks;
mod blind;
mod books;
mod clock;
mod interfaces;
mod latency;
mod links;
mod mix;
mod older;
mod privileges;
mod processes;
mod prometheus;
mod reload;
mod restart;
mod shells;
mod watchdog;

/// Leaves a test, loudly, on a machine that cannot do it.
macro_rules! live {
    ($test:literal $(, $program:literal)*) => {
        if !e2e::live::possible_with($test, &[$($program),*]) {
            return;
        }
    };
}
pub(crate) use live;

/// The cluster's own network is isolated, as that of loopback is.
pub(crate) const ISOLATED: &str = "[network]\nisolated = [\"lo\", \"10.77.0.0/24\"]\n";
