"""The functions that are offered, one a line: Trino's signature, its result, and the same in
DuckDB's SQL.

    name(parameters) -> result = template

Parameters are types; T, U, K, V stand for any type, `T:number` and the like for one of a family.
`when` is a date or a time, handed over as the local time that it shows; `letter` is a text of one
letter. A template `-` is for what Trino has with these types, and this console has not. `(T)->U` is
a lambda. In a template {0} is the first argument, {list} all of them from the last parameter on. In
an aggregate `%` is the place of DISTINCT, `~` that of ORDER BY, `@` that of FILTER and OVER.
`trino_*` are the functions of values.py.

A function stands here only where tests/conformance proves it. KNOWN has the names that Trino has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

WHITE = (
    "' ' || chr(9) || chr(10) || chr(11) || chr(12) || chr(13) || chr(8232) || chr(8233) || "
    "chr(12288)"
)
NO_NAN = (
    "CAST(trino_failure('NOT_SUPPORTED', 'NaN in an array is not part of this local console. "
    "On AWS, Athena runs it') AS {result})"
)
BAD_INDEX = "trino_failure('INVALID_FUNCTION_ARGUMENT', 'SQL array indices start at 1')"

SCALARS = """
length(varchar) -> bigint = length({0})
upper(varchar) -> varchar = CASE WHEN contains({0}, 'ß') THEN trino_upper({0}) ELSE upper({0}) END
lower(varchar) -> varchar = lower({0})
trim(varchar) -> varchar = trim({0}, $white)
ltrim(varchar) -> varchar = ltrim({0}, $white)
rtrim(varchar) -> varchar = rtrim({0}, $white)
trim(varchar, varchar) -> varchar = trim({0}, {1})
ltrim(varchar, varchar) -> varchar = ltrim({0}, {1})
rtrim(varchar, varchar) -> varchar = rtrim({0}, {1})
substr(varchar, bigint) -> varchar = CASE WHEN {1} = 0 OR abs({1}) > length({0}) THEN '' ELSE substring({0}, {1}) END
substr(varchar, bigint, bigint) -> varchar = CASE WHEN {1} = 0 OR abs({1}) > length({0}) OR {2} <= 0 THEN '' WHEN {1} IS NULL OR {2} IS NULL THEN NULL ELSE substring({0}, {1}, {2}) END
concat_ws(varchar, array(varchar)) -> varchar = CASE WHEN {0} IS NULL THEN NULL ELSE array_to_string(list_filter({1}, lambda x: x IS NOT NULL), {0}) END
concat_ws(varchar, varchar...) -> varchar = CASE WHEN {0} IS NULL THEN NULL ELSE concat_ws({0}, {list}) END
lpad(varchar, bigint, varchar) -> varchar = trino_pad({0}, {1}, {2}, true)
rpad(varchar, bigint, varchar) -> varchar = trino_pad({0}, {1}, {2}, false)
replace(varchar, varchar) -> varchar = replace({0}, {1}, '')
replace(varchar, varchar, varchar) -> varchar = CASE WHEN {1} = '' THEN {2} || regexp_replace({0}, '(.)', '\\1' || replace({2}, '\\', '\\\\'), 'gs') ELSE replace({0}, {1}, {2}) END
reverse(varchar) -> varchar = trino_reverse({0})
split(varchar, varchar) -> array(varchar) = trino_split({0}, {1})
split(varchar, varchar, bigint) -> array(varchar) = trino_split_limit({0}, {1}, {2})
split_part(varchar, varchar, bigint) -> varchar = trino_split_part({0}, {1}, {2})
split_to_map(varchar, varchar, varchar) -> map(varchar, varchar) = trino_split_to_map({0}, {1}, {2})
strpos(varchar, varchar) -> bigint = CASE WHEN {1} = '' THEN 1 ELSE strpos({0}, {1}) END
strpos(varchar, varchar, bigint) -> bigint = trino_strpos_nth({0}, {1}, {2})
starts_with(varchar, varchar) -> boolean = starts_with({0}, {1})
chr(bigint) -> varchar = chr(CAST({0} AS INTEGER))
codepoint(letter) -> integer = unicode({0})
translate(varchar, varchar, varchar) -> varchar = trino_translate({0}, {1}, {2})
levenshtein_distance(varchar, varchar) -> bigint = levenshtein({0}, {1})
hamming_distance(varchar, varchar) -> bigint = trino_hamming_distance({0}, {1})
soundex(varchar) -> varchar = trino_soundex({0})
normalize(varchar) -> varchar = trino_nfc({0})
to_utf8(varchar) -> varbinary = encode({0})
from_utf8(varbinary) -> varchar = trino_from_utf8({0})
to_hex(varbinary) -> varchar = hex({0})
from_hex(varchar) -> varbinary = unhex({0})
to_base64(varbinary) -> varchar = base64({0})
from_base64(varchar) -> varbinary = from_base64({0})
md5(varbinary) -> varbinary = unhex(md5({0}))
sha1(varbinary) -> varbinary = unhex(sha1({0}))
sha256(varbinary) -> varbinary = unhex(sha256({0}))
url_extract_host(varchar) -> varchar = trino_url_part({0}, 'host')
url_extract_path(varchar) -> varchar = trino_url_part({0}, 'path')
url_extract_query(varchar) -> varchar = trino_url_part({0}, 'query')
url_extract_parameter(varchar, varchar) -> varchar = trino_url_parameter({0}, {1})
url_encode(varchar) -> varchar = trino_url_encode({0})
url_decode(varchar) -> varchar = trino_url_decode({0})
human_readable_seconds(double) -> varchar = trino_human_seconds({0})
regexp_like(varchar, varchar) -> boolean = trino_regexp_like({0}, {1})
regexp_extract(varchar, varchar) -> varchar = trino_regexp_extract({0}, {1}, 0)
regexp_extract(varchar, varchar, bigint) -> varchar = trino_regexp_extract({0}, {1}, {2})
regexp_extract_all(varchar, varchar) -> array(varchar) = trino_regexp_extract_all({0}, {1}, 0)
regexp_extract_all(varchar, varchar, bigint) -> array(varchar) = trino_regexp_extract_all({0}, {1}, {2})
regexp_replace(varchar, varchar) -> varchar = trino_regexp_replace({0}, {1}, '')
regexp_replace(varchar, varchar, varchar) -> varchar = trino_regexp_replace({0}, {1}, {2})
regexp_split(varchar, varchar) -> array(varchar) = trino_regexp_split({0}, {1})
regexp_count(varchar, varchar) -> bigint = trino_regexp_count({0}, {1})
regexp_position(varchar, varchar) -> integer = trino_regexp_position({0}, {1}, 1, 1)
regexp_position(varchar, varchar, bigint) -> integer = trino_regexp_position({0}, {1}, {2}, 1)
regexp_position(varchar, varchar, bigint, bigint) -> integer = trino_regexp_position({0}, {1}, {2}, {3})
abs(T:number) -> T = abs({0})
sign(T:integral) -> T = sign({0})
sign(real) -> real = -
sign(double) -> double = CASE WHEN isnan({0}) THEN {0} ELSE CAST(sign({0}) AS DOUBLE) END
floor(T:integral) -> T = {0}
floor(real) -> real = CAST(floor({0}) AS FLOAT)
floor(double) -> double = floor({0})
ceil(T:integral) -> T = {0}
ceil(real) -> real = CAST(ceil({0}) AS FLOAT)
ceil(double) -> double = ceil({0})
ceiling(T:integral) -> T = {0}
ceiling(real) -> real = CAST(ceil({0}) AS FLOAT)
ceiling(double) -> double = ceil({0})
truncate(T:integral) -> T = -
truncate(real) -> real = -
truncate(double) -> double = trunc({0})
round(T:integral) -> T = {0}
round(real) -> real = -
round(double) -> double = CASE WHEN isfinite({0}) THEN trino_round_double({0}, 0) ELSE {0} END
round(T:integral, bigint) -> T = round({0}, CAST({1} AS INTEGER))
round(real, bigint) -> real = -
round(double, bigint) -> double = CASE WHEN isfinite({0}) THEN trino_round_double({0}, {1}) ELSE {0} END
power(double, double) -> double = pow({0}, {1})
pow(double, double) -> double = pow({0}, {1})
sqrt(double) -> double = CASE WHEN {0} < 0 THEN 'nan'::DOUBLE ELSE sqrt({0}) END
cbrt(double) -> double = cbrt({0})
exp(double) -> double = exp({0})
ln(double) -> double = CASE WHEN {0} = 0 THEN '-inf'::DOUBLE WHEN {0} < 0 THEN 'nan'::DOUBLE ELSE ln({0}) END
log10(double) -> double = CASE WHEN {0} = 0 THEN '-inf'::DOUBLE WHEN {0} < 0 THEN 'nan'::DOUBLE ELSE log10({0}) END
log2(double) -> double = CASE WHEN {0} = 0 THEN '-inf'::DOUBLE WHEN {0} < 0 THEN 'nan'::DOUBLE ELSE log2({0}) END
log(double, double) -> double = ln({1}) / ln({0})
pi() -> double = pi()
e() -> double = exp(1.0::DOUBLE)
nan() -> double = 'nan'::DOUBLE
infinity() -> double = 'inf'::DOUBLE
is_nan(double) -> boolean = isnan({0})
is_finite(double) -> boolean = isfinite({0})
is_infinite(double) -> boolean = isinf({0})
sin(double) -> double = sin({0})
cos(double) -> double = cos({0})
tan(double) -> double = tan({0})
asin(double) -> double = asin({0})
acos(double) -> double = acos({0})
atan(double) -> double = atan({0})
atan2(double, double) -> double = atan2({0}, {1})
sinh(double) -> double = sinh({0})
cosh(double) -> double = cosh({0})
tanh(double) -> double = tanh({0})
degrees(double) -> double = degrees({0})
radians(double) -> double = radians({0})
bitwise_and(bigint, bigint) -> bigint = ({0} & {1})
bitwise_or(bigint, bigint) -> bigint = ({0} | {1})
bitwise_xor(bigint, bigint) -> bigint = xor({0}, {1})
bitwise_not(bigint) -> bigint = (~ {0})
to_base(bigint, bigint) -> varchar = trino_to_base({0}, {1})
from_base(varchar, bigint) -> bigint = trino_from_base({0}, {1})
random() -> double = random()
rand() -> double = random()
random(bigint) -> bigint = CAST(floor(random() * {0}) AS BIGINT)
uuid() -> uuid = uuid()
date(varchar) -> date = trino_text_to_date({0})
date(when) -> date = CAST({0} AS DATE)
year(when) -> bigint = year({0})
month(when) -> bigint = month({0})
day(when) -> bigint = day({0})
day_of_month(when) -> bigint = day({0})
quarter(when) -> bigint = quarter({0})
week(when) -> bigint = week({0})
week_of_year(when) -> bigint = week({0})
day_of_week(when) -> bigint = isodow({0})
dow(when) -> bigint = isodow({0})
day_of_year(when) -> bigint = dayofyear({0})
doy(when) -> bigint = dayofyear({0})
year_of_week(when) -> bigint = isoyear({0})
yow(when) -> bigint = isoyear({0})
hour(when) -> bigint = hour({0})
minute(when) -> bigint = minute({0})
second(when) -> bigint = second({0})
millisecond(when) -> bigint = millisecond({0}) % 1000
last_day_of_month(when) -> date = last_day({0})
date_format(when, varchar) -> varchar = trino_date_format({0}, {1})
date_parse(varchar, varchar) -> timestamp(3) = trino_date_parse({0}, {1})
from_iso8601_date(varchar) -> date = trino_iso_date({0})
parse_datetime(varchar, varchar) -> zoned(3) = CAST(trino_parse_datetime({0}, {1}) AS TIMESTAMPTZ)
from_unixtime(double) -> zoned(3) = to_timestamp(round({0}, 3))
current_timezone() -> varchar = 'UTC'
json_parse(varchar) -> json = trino_json_parse({0})
json_format(json) -> varchar = {0}
json_extract(varchar, varchar) -> json = trino_json_extract({0}, {1})
json_extract(json, varchar) -> json = trino_json_extract({0}, {1})
json_extract_scalar(varchar, varchar) -> varchar = trino_json_extract_scalar({0}, {1})
json_extract_scalar(json, varchar) -> varchar = trino_json_extract_scalar({0}, {1})
json_array_length(varchar) -> bigint = trino_json_array_length({0})
json_array_length(json) -> bigint = trino_json_array_length({0})
json_size(varchar, varchar) -> bigint = trino_json_size({0}, {1})
json_size(json, varchar) -> bigint = trino_json_size({0}, {1})
json_array_contains(varchar, bigint) -> boolean = trino_json_array_contains({0}, CAST({1} AS VARCHAR))
json_array_contains(varchar, varchar) -> boolean = trino_json_array_contains({0}, trino_json_string({1}))
is_json_scalar(varchar) -> boolean = trino_is_json_scalar({0})
cardinality(array(T)) -> bigint = len({0})
cardinality(map(K, V)) -> bigint = cardinality({0})
element_at(array(T), bigint) -> T = CASE WHEN {1} = 0 THEN CAST($bad_index AS {result}) ELSE list_extract({0}, {1}) END
element_at(map(K, V), K) -> V = map_extract_value({0}, {1})
contains(array(T), T) -> boolean = CASE WHEN list_contains({0}, {1}) THEN true WHEN {0} IS NULL OR {1} IS NULL OR len(list_filter({0}, lambda x: x IS NULL)) > 0 THEN NULL ELSE false END
array_position(array(T), T) -> bigint = CASE WHEN {0} IS NULL OR {1} IS NULL THEN NULL ELSE coalesce(list_position({0}, {1}), 0) END
array_sort(array(T)) -> array(T) = list_sort({0}, 'ASC', 'NULLS LAST')
array_distinct(array(T)) -> array(T) = list_filter({0}, lambda x, i: CASE WHEN x IS NULL THEN len(list_filter({0}[:i], lambda y: y IS NULL)) = 1 ELSE list_position({0}, x) = i END)
array_remove(array(T), T) -> array(T) = CASE WHEN {1} IS NULL THEN NULL ELSE list_filter({0}, lambda x: x IS DISTINCT FROM {1}) END
array_max(array(D:floating)) -> D = CASE WHEN len(list_filter({0}, lambda x: isnan(x))) > 0 THEN $no_nan WHEN len(list_filter({0}, lambda x: x IS NULL)) > 0 THEN NULL ELSE list_max({0}) END
array_max(array(T)) -> T = CASE WHEN len(list_filter({0}, lambda x: x IS NULL)) > 0 THEN NULL ELSE list_max({0}) END
array_min(array(D:floating)) -> D = CASE WHEN len(list_filter({0}, lambda x: isnan(x))) > 0 THEN $no_nan WHEN len(list_filter({0}, lambda x: x IS NULL)) > 0 THEN NULL ELSE list_min({0}) END
array_min(array(T)) -> T = CASE WHEN len(list_filter({0}, lambda x: x IS NULL)) > 0 THEN NULL ELSE list_min({0}) END
reverse(array(T)) -> array(T) = list_reverse({0})
flatten(array(array(T))) -> array(T) = flatten({0})
repeat(T, bigint) -> array(T) = list_transform(range({1}), lambda x: {0})
sequence(bigint, bigint) -> array(bigint) = generate_series({0}, {1}, CASE WHEN {0} <= {1} THEN 1 ELSE -1 END)
sequence(bigint, bigint, bigint) -> array(bigint) = CASE WHEN {2} = 0 OR ({1} - {0}) * {2} < 0 THEN trino_failure('INVALID_FUNCTION_ARGUMENT', 'sequence stop value should be greater than or equal to start value if step is greater than zero otherwise stop should be less than or equal to start')::BIGINT[] ELSE generate_series({0}, {1}, {2}) END
sequence(date, date) -> array(date) = CAST(generate_series({0}, {1}, CASE WHEN {0} <= {1} THEN INTERVAL 1 DAY ELSE INTERVAL (-1) DAY END) AS DATE[])
sequence(date, date, I:interval) -> array(date) = list_transform(range(len(generate_series({0}, {1}, {2}))), lambda i: CAST({0} + {2} * i AS DATE))
sequence(timestamp, timestamp, I:interval) -> array(timestamp) = generate_series({0}, {1}, {2})
arrays_overlap(array(T), array(T)) -> boolean = CASE WHEN list_has_any({0}, {1}) THEN true WHEN len(list_filter({0}, lambda x: x IS NULL)) + len(list_filter({1}, lambda x: x IS NULL)) > 0 AND len({0}) > 0 AND len({1}) > 0 THEN NULL WHEN {0} IS NULL OR {1} IS NULL THEN NULL ELSE false END
trim_array(array(T), bigint) -> array(T) = CASE WHEN {1} > len({0}) OR {1} < 0 THEN CAST(trino_failure('INVALID_FUNCTION_ARGUMENT', 'size must not exceed array cardinality ' || len({0})) AS {result}) ELSE {0}[1:len({0}) - {1}] END
slice(array(T), bigint, bigint) -> array(T) = CASE WHEN {2} < 0 THEN CAST(trino_failure('INVALID_FUNCTION_ARGUMENT', 'length must be greater than or equal to 0') AS {result}) WHEN {1} = 0 THEN CAST($bad_index AS {result}) ELSE list_slice({0}, CASE WHEN {1} < 0 THEN len({0}) + {1} + 1 ELSE {1} END, CASE WHEN {1} < 0 THEN len({0}) + {1} ELSE {1} - 1 END + {2}) END
map_keys(map(K, V)) -> array(K) = map_keys({0})
map_values(map(K, V)) -> array(V) = map_values({0})
transform(array(T), (T)->U) -> array(U) = list_transform({0}, {1})
filter(array(T), (T)->boolean) -> array(T) = list_filter({0}, {1})
any_match(array(T), (T)->boolean) -> boolean = CASE WHEN {0} IS NULL THEN NULL WHEN list_contains(list_transform({0}, {1}), true) THEN true WHEN len(list_filter(list_transform({0}, {1}), lambda m_: m_ IS NULL)) > 0 THEN NULL ELSE false END
all_match(array(T), (T)->boolean) -> boolean = CASE WHEN {0} IS NULL THEN NULL WHEN list_contains(list_transform({0}, {1}), false) THEN false WHEN len(list_filter(list_transform({0}, {1}), lambda m_: m_ IS NULL)) > 0 THEN NULL ELSE true END
none_match(array(T), (T)->boolean) -> boolean = CASE WHEN {0} IS NULL THEN NULL WHEN list_contains(list_transform({0}, {1}), true) THEN false WHEN len(list_filter(list_transform({0}, {1}), lambda m_: m_ IS NULL)) > 0 THEN NULL ELSE true END
to_milliseconds(interval day to second) -> bigint = epoch_ms({0})
"""

AGGREGATES = """
count(T) -> bigint = count(%{0}~)@
count_if(boolean) -> bigint = count(CASE WHEN {0} THEN 1 END)@
sum(T:integral) -> bigint = CAST(sum(%{0})@ AS BIGINT)
sum(real) -> real = CAST(sum(%{0}~)@ AS FLOAT)
sum(double) -> double = sum(%{0}~)@
avg(T:integral) -> double = avg(%{0})@
avg(real) -> real = CAST(avg(%{0})@ AS FLOAT)
avg(double) -> double = avg(%{0})@
sum(interval day to second) -> interval day to second = to_milliseconds(CAST(sum(epoch_ms({0}))@ AS BIGINT))
avg(interval day to second) -> interval day to second = to_milliseconds(CAST(trunc(avg(epoch_ms({0}))@) AS BIGINT))
min(T) -> T = min({0})@
max(D:floating) -> D = coalesce(max(CASE WHEN NOT isnan({0}) THEN {0} END)@, max({0})@)
max(T) -> T = max({0})@
min(T, bigint) -> array(T) = min({0}, {1})@
max(T, bigint) -> array(T) = max({0}, {1})@
min_by(T, U) -> T = arg_min_null({0}, {1})@
max_by(T, D:floating) -> T = arg_max_null({0}, CASE WHEN NOT isnan({1}) THEN {1} END)@
max_by(T, U) -> T = arg_max_null({0}, {1})@
min_by(T, U, bigint) -> array(T) = arg_min({0}, {1}, {2})@
max_by(T, U, bigint) -> array(T) = arg_max({0}, {1}, {2})@
arbitrary(T) -> T = any_value({0})@
any_value(T) -> T = any_value({0})@
bool_and(boolean) -> boolean = bool_and({0})@
bool_or(boolean) -> boolean = bool_or({0})@
every(boolean) -> boolean = bool_and({0})@
array_agg(T) -> array(T) = list(%{0}~)@
approx_distinct(T) -> bigint = count(DISTINCT {0})@
stddev(double) -> double = stddev_samp({0})@
stddev_samp(double) -> double = stddev_samp({0})@
stddev_pop(double) -> double = stddev_pop({0})@
variance(double) -> double = var_samp({0})@
var_samp(double) -> double = var_samp({0})@
var_pop(double) -> double = var_pop({0})@
corr(real, real) -> real = CAST(nullif(corr({0}, {1})@, 'nan'::DOUBLE) AS FLOAT)
corr(double, double) -> double = nullif(corr({0}, {1})@, 'nan'::DOUBLE)
covar_pop(real, real) -> real = CAST(covar_pop({0}, {1})@ AS FLOAT)
covar_pop(double, double) -> double = covar_pop({0}, {1})@
covar_samp(real, real) -> real = CAST(covar_samp({0}, {1})@ AS FLOAT)
covar_samp(double, double) -> double = covar_samp({0}, {1})@
regr_slope(real, real) -> real = CAST(regr_slope({0}, {1})@ AS FLOAT)
regr_slope(double, double) -> double = regr_slope({0}, {1})@
regr_intercept(real, real) -> real = CAST(regr_intercept({0}, {1})@ AS FLOAT)
regr_intercept(double, double) -> double = regr_intercept({0}, {1})@
geometric_mean(double) -> double = exp(avg(ln({0}))@)
bitwise_and_agg(bigint) -> bigint = bit_and({0})@
bitwise_or_agg(bigint) -> bigint = bit_or({0})@
bitwise_xor_agg(bigint) -> bigint = bit_xor({0})@
listagg(varchar) -> varchar = string_agg(%{0}, ''~)@
listagg(varchar, varchar) -> varchar = string_agg(%{0}, {1}~)@
histogram(T) -> map(T, bigint) = histogram({0})@
"""

WINDOWS = """
row_number() -> bigint = row_number()@
rank() -> bigint = rank()@
dense_rank() -> bigint = dense_rank()@
percent_rank() -> double = percent_rank()@
cume_dist() -> double = cume_dist()@
ntile(bigint) -> bigint = ntile({0})@
lag(T) -> T = lag({0}^)@
lag(T, bigint) -> T = lag({0}, {1}^)@
lag(T, bigint, T) -> T = lag({0}, {1}, {2}^)@
lead(T) -> T = lead({0}^)@
lead(T, bigint) -> T = lead({0}, {1}^)@
lead(T, bigint, T) -> T = lead({0}, {1}, {2}^)@
first_value(T) -> T = first_value({0}^)@
last_value(T) -> T = last_value({0}^)@
nth_value(T, bigint) -> T = nth_value({0}, {1}^)@
"""

# Signatures that Athena knows and this console has not, of names that it offers with other types
OTHERS = """
length(varbinary) -> bigint = -
substr(varbinary, bigint) -> varbinary = -
substr(varbinary, bigint, bigint) -> varbinary = -
reverse(varbinary) -> varbinary = -
lpad(varbinary, bigint, varbinary) -> varbinary = -
rpad(varbinary, bigint, varbinary) -> varbinary = -
from_hex(varbinary) -> varbinary = -
from_base64(varbinary) -> varbinary = -
random(bigint, bigint) -> bigint = -
year(I:interval) -> bigint = -
month(I:interval) -> bigint = -
day(I:interval) -> bigint = -
hour(I:interval) -> bigint = -
minute(I:interval) -> bigint = -
second(I:interval) -> bigint = -
hour(time) -> bigint = -
minute(time) -> bigint = -
second(time) -> bigint = -
from_unixtime(double, varchar) -> zoned = -
from_unixtime(double, bigint, bigint) -> zoned = -
json_size(T, varchar) -> bigint = -
json_array_contains(T, U) -> boolean = -
is_json_scalar(json) -> boolean = -
sequence(T, T, I:interval) -> array(T) = -
regexp_replace(varchar, varchar, (array(varchar))->varchar) -> varchar = -
sum(interval year to month) -> interval year to month = -
avg(interval year to month) -> interval year to month = -
approx_distinct(T, double) -> bigint = -
listagg(varbinary) -> varbinary = -
"""

# All that Trino lists in SHOW FUNCTIONS, written by tests/conformance/record.py, and the two that
# it does not list
KNOWN = frozenset(Path(__file__).with_name("trino_functions.txt").read_text("utf-8").split()) | {
    "format",
    "version",
}


@dataclass(frozen=True)
class Signature:
    """One line of the tables above."""

    name: str
    parameters: tuple[str, ...]
    result: str
    template: str
    variadic: bool


def split_types(text: str) -> list[str]:
    """`a, map(b, c)` at its outer commas."""
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()] if text.strip() else []


@cache
def signatures(kind: str) -> dict[str, list[Signature]]:
    """The table `scalar`, `aggregate` or `window` by name."""
    text = {"scalar": SCALARS, "aggregate": AGGREGATES, "window": WINDOWS, "other": OTHERS}[kind]
    text = text.replace("$white", WHITE).replace("$bad_index", BAD_INDEX).replace("$no_nan", NO_NAN)
    found: dict[str, list[Signature]] = {}
    for line in text.strip().splitlines():
        head, template = line.split(" = ", 1)
        inner, result = head.rsplit(" -> ", 1)
        name, parameters = inner.split("(", 1)
        listed = split_types(parameters[:-1])
        variadic = bool(listed) and listed[-1].endswith("...")
        listed = [p.removesuffix("...") for p in listed]
        found.setdefault(name, []).append(
            Signature(name, tuple(listed), result, template, variadic)
        )
    return found


def fill(template: str, arguments: list[str], rest: int, clauses: dict[str, str]) -> str:
    """The template with the arguments, and an aggregate's clauses, in their places. One pass: what
    an argument contains is never taken for a place."""

    def one(place: re.Match[str]) -> str:
        if place[1]:
            return ", ".join(arguments[rest:]) if place[1] == "list" else arguments[int(place[1])]
        return clauses.get(place[0], place[0])

    return re.sub(r"\{(\d+|list)\}|[%~@^]", one, template)
