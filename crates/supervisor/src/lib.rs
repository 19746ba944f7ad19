//! Ganger's supervisor: spawns workers, shares connections among them, keeps them alive, replaces
//! them without losing a request.
//!
//! # Modules, in reading order

// What is supervised, and what is told of it.
pub mod config;
pub mod events;
pub mod logs;
pub mod report;
// What decides, without a clock or a process.
pub mod cpus;
pub mod interpreter;
pub mod policy;
pub mod worker;
// Sockets that are never closed, and how a program gets its own.
pub mod deliver;
pub mod leftovers;
pub mod listen;
mod proc;
pub mod spawn;
// The life of an app.
pub mod app;
pub mod notify;
pub mod probe;
pub mod ready;
// All of it together.
pub mod broker;
pub mod control;
pub mod guard;
mod handler;
pub mod home;
pub mod memory;
mod signals;
pub mod supervisor;
// What people type.
pub mod cli;
pub mod demo;
