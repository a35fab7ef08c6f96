//! Values, there and back.

use serde_json::{Value, json};

use crate::{Agent, Crm, Test, tool};

pub(crate) const TESTS: &[Test] = &[
    ("what_goes_in_comes_out", what_goes_in_comes_out),
    ("every_type_has_its_form", every_type_has_its_form),
    ("a_type_of_the_database_works_on_every_connection", a_type_of_the_database_works_on_every_connection),
];

const TYPES: &str =
    "CREATE TYPE stage AS ENUM ('lead', 'won'); CREATE DOMAIN amount AS numeric CHECK (value > 0);";

fn what_goes_in_comes_out() {
    let sql = "SELECT :text::text AS text, :big::int8 AS big, :small::int2 AS small, :exact::numeric AS exact, \
        :amount::amount AS amount, :float::float8 AS float, :truth::bool AS truth, :day::date AS day, :at::timestamptz AS at, \
        :id::uuid AS id, :doc::jsonb AS doc, :bytes::bytea AS bytes, :stage::stage AS stage, :texts::text[] AS texts, \
        :bigs::int8[] AS bigs, :stages::stage[] AS stages, :list::jsonb AS list, :absent::text AS absent";
    let params = r#"[t.params]
text = { type = "string" }
big = { type = "integer" }
small = { type = "integer", minimum = -32768, maximum = 32767 }
exact = { type = "string", pattern = "-?[0-9]+([.][0-9]+)?" }
amount = { type = "number" }
float = { type = "number" }
truth = { type = "boolean" }
day = { type = "string", format = "date" }
at = { type = "string" }
id = { type = "string", format = "uuid" }
doc = { type = "string" }
bytes = { type = "string" }
stage = { type = "string", enum = ["lead", "won"] }
texts = { type = "array", items = { type = "string" } }
bigs = { type = "array", items = { type = "integer" } }
stages = { type = "array", items = { type = "string", enum = ["lead", "won"] } }
list = { type = "array", items = { type = "integer" } }
absent = { type = "string", optional = true }"#;
    let crm = Crm::with(TYPES, "read", sql, params);
    assert_eq!(crm.errors(), Vec::<String>::new());
    let serving = crm.project.serve(&[]);
    let alice = Agent::of(&crm.project, &serving, "alice");
    let given: Value = serde_json::from_str(
        r#"{ "text": "é'\"\\\n$1:x", "big": 9223372036854775807, "small": -32768, "exact": "-123456789012345678901234567890.0010",
            "amount": 0.1, "float": 0.5, "truth": true, "day": "2026-02-28", "at": "2026-10-31T12:00:00.25+02:00",
            "id": "0192f0c1-7b1e-7c3a-9f00-3b1f5a2c4d6e", "doc": "{\"n\": 9007199254740993}", "bytes": "AP8=",
            "stage": "won", "texts": ["a,b", "{c}", "\"d\\", "", "NULL"], "bigs": [9223372036854775807, -1],
            "stages": ["won", "lead"], "list": [1, 2] }"#,
    )
    .unwrap();
    let reply = alice.call("t", given);
    let expected: Value = serde_json::from_str(
        r#"{ "text": "é'\"\\\n$1:x", "big": 9223372036854775807, "small": -32768, "exact": "-123456789012345678901234567890.0010",
            "amount": "0.1", "float": 0.5, "truth": true, "day": "2026-02-28", "at": "2026-10-31T10:00:00.25Z",
            "id": "0192f0c1-7b1e-7c3a-9f00-3b1f5a2c4d6e", "doc": {"n": 9007199254740993}, "bytes": {"base64": "AP8="},
            "stage": "won", "texts": ["a,b", "{c}", "\"d\\", "", "NULL"], "bigs": [9223372036854775807, -1],
            "stages": ["won", "lead"], "list": [1, 2], "absent": null }"#,
    )
    .unwrap();
    assert_eq!(reply["rows"][0], expected, "{reply}");
}

fn every_type_has_its_form() {
    let forms = [
        ("0::numeric", json!("0")),
        ("0.00::numeric", json!("0.00")),
        ("0.0001::numeric", json!("0.0001")),
        ("-0.5::numeric", json!("-0.5")),
        ("10000::numeric", json!("10000")),
        ("100000000::numeric", json!("100000000")),
        ("12345.678::numeric", json!("12345.678")),
        ("1e-20::numeric", json!("0.00000000000000000001")),
        ("1e30::numeric", json!("1000000000000000000000000000000")),
        ("99999999.99999999::numeric", json!("99999999.99999999")),
        ("'NaN'::numeric", json!("NaN")),
        ("'-Infinity'::numeric", json!("-Infinity")),
        ("'NaN'::float8", json!("NaN")),
        ("0.1::float4", json!(0.1)),
        ("1e300::float8", json!(1e300)),
        ("2147483647::int4", json!(2_147_483_647)),
        ("'0001-01-01'::date", json!("0001-01-01")),
        ("'infinity'::date", json!("infinity")),
        ("'1969-12-31 23:59:59.999999+00'::timestamptz", json!("1969-12-31T23:59:59.999999Z")),
        ("'-infinity'::timestamptz", json!("-infinity")),
        ("'2026-10-31 12:00:00'::timestamp", json!("2026-10-31T12:00:00")),
        ("'23:59:59.5'::time", json!("23:59:59.5")),
        ("'24:00:00'::time", json!("24:00:00")),
        ("'1 month -2 days 03:00:00.5'::interval", json!("P1M-2DT10800.5S")),
        ("'a'::varchar", json!("a")),
        ("'a'::char(3)", json!("a  ")),
        ("NULL::int8", json!(null)),
        ("ARRAY[1, NULL]::int4[]", json!([1, null])),
        ("'{}'::text[]", json!([])),
        ("ARRAY[0.10, 2]::numeric[]", json!(["0.10", "2"])),
        ("'{\"a\":[1]}'::json", json!({ "a": [1] })),
    ];
    let columns: Vec<String> =
        forms.iter().enumerate().map(|(at, (sql, _))| format!("{sql} AS c{at}")).collect();
    let crm = Crm::with("", "read", &format!("SELECT {}", columns.join(", ")), "");
    assert_eq!(crm.errors(), Vec::<String>::new());
    let reply = crm.project.call("alice", "t", &[]);
    for (at, (sql, form)) in forms.iter().enumerate() {
        assert_eq!(reply["done"]["rows"][0][format!("c{at}")], *form, "{sql}: {reply}");
    }
}

fn a_type_of_the_database_works_on_every_connection() {
    let sql =
        "SELECT i, 'won'::stage AS stage, ARRAY['lead'::stage] AS stages FROM generate_series(1, 2000) AS i";
    let crm = Crm::new(TYPES, &tool("t", "read", sql, "limits = { rows = 2000, seconds = 30 }"));
    let serving = crm.project.serve(&[]);
    let alice = Agent::of(&crm.project, &serving, "alice");
    for _ in 0..3 {
        let reply = alice.call("t", json!({}));
        let last = json!({ "i": 2000, "stage": "won", "stages": ["lead"] });
        assert_eq!(reply["rows"][1999], last);
    }
}
