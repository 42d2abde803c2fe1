//! An MCP server behind the real binary: what is called is sold, what its result says decides.

mod support;

#[path = "mcp/hostile.rs"]
mod hostile;
#[path = "mcp/pays.rs"]
mod pays;
#[path = "mcp/refused.rs"]
mod refused;
#[path = "mcp/storm.rs"]
mod storm;
#[path = "mcp/streams.rs"]
mod streams;
