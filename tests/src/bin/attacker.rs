//! `attacker NAME PROFILE TOKEN SKU` attacks until its standard input ends: a process of its own, which the system
//! runs when nobody else wants to, so that who suffers does so from the server and not from sharing its cores.
//!
//! Says `at work` when it is, and at the end what it was told; ends with 101 if an attacker found the server wrong.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stockline_client::Profile;
use stockline_tests::attacker::{HANG, Told, begin};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, profile, token, sku] = &arguments[..] else { panic!("NAME PROFILE TOKEN SKU") };
    let profile = Profile::load(Path::new(profile)).expect("a profile");
    let profile = Profile { token: token.clone(), ..profile };
    let told = Arc::new(Told::default());
    let attackers = begin(name, &profile, sku.parse().expect("a number"), &told).expect("an attack");
    tokio::time::sleep(Duration::from_millis(300)).await;
    if name == "keys" || name == "large" {
        let begun = async {
            while told.granted.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(HANG, begun).await.expect("a flood of keys is served as well");
    }
    println!("at work");
    let waiting = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    waiting.await.expect("waited").expect("read");
    println!(
        "{} granted, {} frames turned away",
        told.granted.load(Ordering::Relaxed),
        told.turned_away.load(Ordering::Relaxed)
    );
    for attacker in attackers {
        attacker.abort();
        if let Err(error) = attacker.await
            && error.is_panic()
        {
            std::process::exit(101);
        }
    }
}
