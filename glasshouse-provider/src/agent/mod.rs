//! The agent: the entrypoint on an allocation. It relays sealed and signed bytes between the owner and the segments
//! that it starts, keeps them until they are acknowledged, and holds no secret but the launch secret.

mod artifacts;
mod auth;
mod door;
mod outbox;
mod own_end;
mod packages;
mod routes;
mod segment;
mod segments;
mod serve;

pub(crate) use serve::main;
