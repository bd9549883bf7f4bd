//! The model beside the real engine.

mod counterexamples;
mod random;
mod small;
mod world;
