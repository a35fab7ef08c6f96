//! A plot by the real Matplotlib, over the real gateway. `cargo xtask check` installs it; where it is not to be had the test is
//! ignored here, never passed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

use std::process::{Command, ExitCode};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libtest_mimic::{Arguments, Trial};
use ringfence_mcp::{Revision, ToolCall};
use ringfence_tests::Project;
use serde_json::json;

fn main() -> ExitCode {
    let has_it = Command::new("/usr/bin/python3").args(["-I", "-c", "import matplotlib"]).output();
    let is_missing = !has_it.is_ok_and(|output| output.status.success());
    if is_missing {
        eprintln!("\nSKIPPED, and so neither passed nor failed: `/usr/bin/python3` has no matplotlib\n");
    }
    let trial = Trial::test("a_plot_of_matplotlib_is_an_image_in_the_answer", || {
        a_plot_of_matplotlib_is_an_image_in_the_answer();
        Ok(())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial.with_ignored_flag(is_missing)]).exit_code()
}

const PLOT: &str = "
import matplotlib.pyplot as plt
plt.figure(figsize=(4, 3), dpi=50)
plt.plot([1, 4, 9, 16])
plt.title('squares')
plt.savefig('/artifacts/squares.png')
'plotted'
";

fn a_plot_of_matplotlib_is_an_image_in_the_answer() {
    let project = Project::new();
    let serving = project.serve(&[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for revision in Revision::ALL {
        let bob = serving.client(&project.token("bob", &[]), revision);
        let call = |code: &str| {
            let arguments = json!({ "code": code }).as_object().unwrap().clone();
            let answer =
                runtime.block_on(bob.call(ToolCall { name: "run_python".into(), arguments })).unwrap();
            answer.result().unwrap().clone()
        };
        let result = call(PLOT);
        assert_eq!(result["structuredContent"]["value"], "'plotted'", "{result}");
        let images: Vec<_> =
            result["content"].as_array().unwrap().iter().filter(|block| block["type"] == "image").collect();
        let [image] = images.as_slice() else { panic!("one image, not {}: {result}", images.len()) };
        assert_eq!(image["mimeType"], "image/png");
        let bytes = STANDARD.decode(image["data"].as_str().unwrap()).unwrap();
        assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
        // The header says what the program asked for: 4 by 3 inches at 50 dots each.
        assert_eq!(&bytes[12..24], b"IHDR\0\0\0\xc8\0\0\0\x96");
        // The control: what only calls itself one is no image.
        let other = call("open('/artifacts/squares.png', 'w').write('no picture')");
        let blocks = other["content"].as_array().unwrap();
        assert!(blocks.iter().all(|block| block["type"] != "image"), "{other}");
    }
}
