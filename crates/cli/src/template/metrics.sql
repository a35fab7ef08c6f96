CREATE TABLE users (user_id TEXT PRIMARY KEY, name TEXT NOT NULL, tenant TEXT NOT NULL);
CREATE TABLE user_metrics (
    user_id TEXT NOT NULL REFERENCES users (user_id),
    reporting_month TEXT NOT NULL,
    metric_name TEXT NOT NULL,
    value REAL NOT NULL,
    tenant TEXT NOT NULL,
    PRIMARY KEY (user_id, reporting_month, metric_name)
);
INSERT INTO users VALUES ('u-1', 'Ann', 'acme'), ('u-2', 'Ben', 'acme'), ('u-3', 'Cleo', 'globex');
INSERT INTO user_metrics VALUES
    ('u-1', '2026-09', 'sessions', 18, 'acme'), ('u-1', '2026-10', 'conversion', 0.37, 'acme'),
    ('u-1', '2026-10', 'sessions', 21, 'acme'), ('u-2', '2026-10', 'sessions', 5, 'acme'),
    ('u-3', '2026-10', 'sessions', 44, 'globex');
