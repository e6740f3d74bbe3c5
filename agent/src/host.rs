//! What stands behind the sockets of this host: processes, Erlang nodes, port mappers, containers.
//!
//! Nothing here is about packets. netlink and `/proc` tell what is there now, at a bounded cost for each look; a cookie on a
//! command line is never kept. Sockets of other network namespaces are found through a process in them, because entering a
//! namespace would take CAP_SYS_ADMIN.

mod attribution;
pub mod beam;
mod cgroup;
pub mod epmd;
mod inventory;
pub mod process;
pub mod sockets;

pub use self::inventory::{Connection, Inventory, LeftOut, Listener, Options, Role, Snapshot, Why};
