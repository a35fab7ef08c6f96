//! What a sandbox costs: request to result of `print(1)`, side by side in one run with what others do for the same.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a bench"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence_sandbox::{Ended, Language, Profile, Program, Sandbox, Unwatched, strongest};
use tokio_util::sync::CancellationToken;

fn main() {
    ringfence_sandbox::enter_if_jail();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut profile = strongest(Language::Python).unwrap();
        profile.ready = 4;
        let pool = Sandbox::new(profile.clone());
        pool.warm().await.unwrap();
        let mut took = Vec::new();
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let began = Instant::now();
            let outcome = pool
                .run(Program::new("print(1)"), Arc::new(Unwatched), CancellationToken::new())
                .await
                .unwrap();
            took.push(began.elapsed().as_secs_f64() * 1e3);
            assert_eq!((outcome.ended, outcome.stdout.text.as_str()), (Ended::Exit(0), "1\n"));
            assert!(outcome.receipt.nothing_left);
        }
        took.sort_by(f64::total_cmp);
        println!("pool: min {:.2} median {:.2} p95 {:.2} ms", took[0], took[50], took[95]);
        let began = Instant::now();
        let mut all = Vec::new();
        for _ in 0..8 {
            let pool = pool.clone();
            all.push(tokio::spawn(async move {
                for _ in 0..50 {
                    pool.run(Program::new("print(1)"), Arc::new(Unwatched), CancellationToken::new())
                        .await
                        .unwrap();
                }
            }));
        }
        for one in all {
            one.await.unwrap();
        }
        println!("sustained: {:.0} runs/s", 400.0 / began.elapsed().as_secs_f64());
        pool.close().await;
        let mut took = Vec::new();
        for _ in 0..30 {
            let mut cold: Profile = profile.clone();
            cold.ready = 0;
            cold.start = ringfence_sandbox::Start::Exec;
            let began = Instant::now();
            let sandbox = Sandbox::new(cold);
            sandbox
                .run(Program::new("print(1)"), Arc::new(Unwatched), CancellationToken::new())
                .await
                .unwrap();
            took.push(began.elapsed().as_secs_f64() * 1e3);
            sandbox.close().await;
        }
        took.sort_by(f64::total_cmp);
        println!("cold: min {:.2} median {:.2} p95 {:.2} ms", took[0], took[15], took[28]);
    });
}
