//! Queries: parameters in, the engine's results out.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::json;
use tokio::time::Instant;

use super::params::Params;
use super::{Answer, ApiError, LokiApi, shapes};
use crate::model::Timestamp;
use crate::query::logql::{Expr, Grid, LinesQuery, parse};

fn query(params: &Params) -> Result<Expr, ApiError> {
    Ok(parse(params.get("query").unwrap_or(""))?)
}

/// Numbers at one time.
pub(super) async fn instant(State(api): State<LokiApi>, params: Params) -> Answer {
    let Expr::Metric(expr) = query(&params)? else {
        return Err(ApiError::bad(
            "log queries are not supported as an instant query type, please change your query to a range query type",
        ));
    };
    params.limit()?;
    let at = params.time("time")?.unwrap_or_else(|| api.clock.now());
    let started = Instant::now();
    let answer = api.run(move |store, engine, stop| Ok(engine.numbers(store, &expr, Grid::instant(at), stop)?));
    let (value, stats) = answer.await?;
    Ok(shapes::instant(value, at, &shapes::stats(&stats, started.elapsed())))
}

/// Lines of a range, or numbers on the steps of it.
pub(super) async fn range(State(api): State<LokiApi>, params: Params) -> Answer {
    let expr = query(&params)?;
    let (start, end) = params.range(api.clock.now())?;
    let started = Instant::now();
    match expr {
        Expr::Log(expr) => {
            let lines = LinesQuery { start, end, direction: params.direction()?, limit: params.limit()? };
            let answer = api.run(move |store, engine, stop| Ok(engine.lines(store, &expr, &lines, stop)?));
            let (lines, stats) = answer.await?;
            Ok(shapes::lines(&lines, &params, &shapes::stats(&stats, started.elapsed())))
        }
        Expr::Metric(expr) => {
            let step = params.step((start, end))?;
            let (start, end) = aligned((start, end), step);
            let grid = Grid::range(start, end, step, api.engine.options())?;
            let answer = api.run(move |store, engine, stop| Ok(engine.numbers(store, &expr, grid, stop)?));
            let (value, stats) = answer.await?;
            Ok(shapes::matrix(value, &grid, &shapes::stats(&stats, started.elapsed())))
        }
    }
}

/// The range widened to whole steps since the epoch, as Loki does: points stay where they are when a dashboard moves on.
fn aligned((start, end): (Timestamp, Timestamp), step: Duration) -> (Timestamp, Timestamp) {
    let step_ns = i64::try_from(step.as_nanos()).unwrap_or(i64::MAX).max(1);
    let start_ns = start.nanos().saturating_sub(start.nanos().rem_euclid(step_ns));
    let beyond_ns = end.nanos().rem_euclid(step_ns);
    let end_ns = if beyond_ns == 0 { end.nanos() } else { end.nanos().saturating_add(step_ns - beyond_ns) };
    (Timestamp::from_nanos(start_ns), Timestamp::from_nanos(end_ns))
}

/// The query in its canonical form.
pub(super) async fn format(params: Params) -> Answer {
    Ok(Json(json!({"status": "success", "data": query(&params)?.to_string()})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_widened_to_whole_steps() {
        for ((start, end), step, expected) in [
            ((300, 3600), 120, (240, 3600)),
            ((241, 359), 120, (240, 360)),
            ((240, 360), 120, (240, 360)),
            ((-1, 1), 7, (-7, 7)),
        ] {
            let range = (Timestamp::from_secs(start), Timestamp::from_secs(end));
            let widened = aligned(range, Duration::from_secs(step));
            assert_eq!(widened, (Timestamp::from_secs(expected.0), Timestamp::from_secs(expected.1)), "{range:?}");
        }
    }
}
