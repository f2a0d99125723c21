import generation.models.rollups
from django.db import migrations, models

LENGTH = "The bucket's length: 5, 60, 360, 1440 or 10080."
START = "Its start, in UTC; weeks begin on Mondays. A request belongs to it by its arrival."
HISTOGRAMS = ("latency_steps", "latency_counts", "llm_latency_steps", "llm_latency_counts")

# What is computed meanwhile would be missing here. A pass waits, and a new process does it again.
LOCK = "LOCK TABLE generation_rollup IN EXCLUSIVE MODE"
# From rollups, since the log may have no rows of their time any more.
LATENCY = """
INSERT INTO generation_latency (minutes, bucket, provider, model, steps, counts)
SELECT minutes, bucket, provider, model, array_agg(step ORDER BY step),
    array_agg(count ORDER BY step)
FROM (
    SELECT minutes, bucket, coalesce(provider, ''), coalesce(model, ''), step, sum(count)::int
    FROM (
        SELECT lengths.minutes,
            date_bin(lengths.minutes * interval '1 minute', bucket, '1970-01-05Z') AS bucket,
            provider, model, step, count
        FROM (VALUES (5, 5), (60, 60), (360, 360), (1440, 360), (10080, 360))
            AS lengths (minutes, source)
        JOIN generation_rollup ON generation_rollup.minutes = source,
            unnest(latency_steps, latency_counts) AS histogram (step, count)
        WHERE status = 'succeeded'
    ) AS each
    GROUP BY GROUPING SETS ((minutes, bucket, provider, model, step), (minutes, bucket, step))
    HAVING GROUPING(provider) = 1 OR (provider, model) <> ('', '')
) AS steps (minutes, bucket, provider, model, step, count)
GROUP BY minutes, bucket, provider, model"""
HIGHEST = """
ALTER TABLE generation_rollup DROP COLUMN latency_counts, DROP COLUMN llm_latency_steps,
    DROP COLUMN llm_latency_counts,
    ALTER COLUMN latency_steps TYPE integer
        USING coalesce(latency_steps[cardinality(latency_steps)], 0)"""
RENAME = "ALTER TABLE generation_rollup RENAME COLUMN latency_steps TO highest_latency_step"
ITEMS = """ARRAY(
        SELECT DISTINCT unnest({items}) COLLATE "C" FROM generation_rollup AS each
        WHERE each.minutes = 360 AND each.bucket >= source.longer
            AND each.bucket < source.longer + source.length
            AND (each.provider, each.model, each.status, each.error_type, each.http_status)
                = (source.provider, source.model, source.status, source.error_type,
                    source.http_status)
        ORDER BY 1
    )"""
DAYS_AND_WEEKS = f"""
INSERT INTO generation_rollup
SELECT minutes, longer, provider, model, status, error_type, http_status, min(first_at),
    max(last_at), sum(requests), sum(priced), sum(unpriced), sum(retried), sum(fell_back),
    sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens),
    sum(cost_usd), {ITEMS.format(items="failed_users")}, max(highest_cost_usd),
    max(highest_total_tokens), {ITEMS.format(items="stop_reasons")}, max(highest_latency_step)
FROM (
    SELECT lengths.minutes, length, date_bin(length, bucket, '1970-01-05Z') AS longer, provider, model,
        status, error_type, http_status, first_at, last_at, requests, priced, unpriced,
        retried, fell_back, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
        cost_usd, highest_cost_usd, highest_total_tokens, highest_latency_step
    FROM generation_rollup, (VALUES (1440, interval '1 day'), (10080, interval '7 days'))
        AS lengths (minutes, length)
    WHERE generation_rollup.minutes = 360
) AS source
GROUP BY minutes, length, longer, provider, model, status, error_type, http_status"""
# Back: the histograms come from the log again, those of its time.
UNDO = (
    "DELETE FROM generation_rollup WHERE minutes > 360",
    "ALTER TABLE generation_rollup DROP COLUMN highest_latency_step",
    *(
        f"ALTER TABLE generation_rollup ADD COLUMN {name} integer[] NOT NULL DEFAULT '{{}}'"
        for name in HISTOGRAMS
    ),
    *(f"ALTER TABLE generation_rollup ALTER COLUMN {name} DROP DEFAULT" for name in HISTOGRAMS),
    "UPDATE generation_maintenance SET watermark = NULL, back_to = NULL WHERE task = 'rollups'",
)


class Migration(migrations.Migration):
    dependencies = [
        ("generation", "0008_saved_views"),
    ]

    operations = [
        migrations.CreateModel(
            name="Latency",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "minutes",
                        "bucket",
                        "provider",
                        "model",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("minutes", models.SmallIntegerField(help_text=LENGTH)),
                ("bucket", models.DateTimeField(help_text=START)),
                (
                    "provider",
                    models.CharField(
                        help_text="Empty, as the model is: all together.", max_length=32
                    ),
                ),
                ("model", models.CharField(max_length=200)),
                (
                    "steps",
                    generation.models.rollups.IntegerArray(
                        help_text="Those of `rollups/histogram.py` that any request took, in ascending order."
                    ),
                ),
                (
                    "counts",
                    generation.models.rollups.IntegerArray(
                        help_text="How many requests took each of the steps."
                    ),
                ),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.RunSQL(
            (LOCK, LATENCY, HIGHEST, RENAME, DAYS_AND_WEEKS),
            UNDO,
            state_operations=[
                *(migrations.RemoveField("rollup", name) for name in HISTOGRAMS),
                migrations.AddField(
                    "rollup",
                    "highest_latency_step",
                    models.IntegerField(help_text="Of one request, as in `Latency`."),
                    preserve_default=False,
                ),
            ],
            hints={"model_name": "rollup"},
        ),
        migrations.AlterField(
            model_name="rollup", name="minutes", field=models.SmallIntegerField(help_text=LENGTH)
        ),
        migrations.AlterField(
            model_name="rollup", name="bucket", field=models.DateTimeField(help_text=START)
        ),
    ]
