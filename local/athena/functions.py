r"""The supported operators, functions and casts, one per line, with their DuckDB SQL.

    names(parameters) -> result = template

A parameter is a type, or a letter of FAMILIES for any type of a family. `bigint` accepts all
integers, `double` and `decimal` also other numbers, `when` a date or timestamp, passed as
TIMESTAMP. A word in quotes is a literal that LITERALS reads, `(T)->U` a lambda. A last parameter
with `...` may repeat. A result may be one of RESULTS. In a template, {0} is the first argument,
{list} all of them, {rest} all but the first, {name} the name, {result} the result's type, {scale}
its scale. In an aggregate, % is the place of DISTINCT, ~ of ORDER BY, @ of FILTER and OVER.
<CODE: message> raises Trino's error; <?> raises NOT_SUPPORTED for this value.

A line may be added only if recorded queries prove that DuckDB and Trino give the same answers.
"""

from __future__ import annotations

import decimal
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb

from .results import DATE, NOT_PART, Type, scientific

OPERATORS = """
=; <>; <; <=; >; >=(D, D) -> boolean = ({0} {name} {1})
=; <; <=; >; >=(F, F) -> boolean = CASE WHEN {0} IS NULL OR {1} IS NULL THEN NULL WHEN isnan({0}) OR isnan({1}) THEN false ELSE {0} {name} {1} END
<>(F, F) -> boolean = CASE WHEN {0} IS NULL OR {1} IS NULL THEN NULL WHEN isnan({0}) OR isnan({1}) THEN true ELSE {0} <> {1} END
AND; OR(boolean, boolean) -> boolean = ({0} {name} {1})
NOT(boolean) -> boolean = (NOT {0})
IS(T, unknown) -> boolean = ({0} IS NULL)
BETWEEN(D, D, D) -> boolean = ({0} BETWEEN {1} AND {2})
BETWEEN(F, F, F) -> boolean = ({0} BETWEEN {1} AND {2} AND NOT isnan({0}) AND NOT isnan({2}))
IN(D, D...) -> boolean = ({0} IN ({rest}))
IN(F, F...) -> boolean = CASE WHEN isnan({0}) THEN <?> ELSE {0} IN ({rest}) END
IS DISTINCT FROM; IS NOT DISTINCT FROM(S, S) -> boolean = ({0} {name} {1})
LIKE(varchar, varchar) -> boolean = ({0} LIKE {1})
||(varchar, varchar) -> varchar = ({0} || {1})
+; -; *(I, I) -> I = CAST({0} {name} {1} AS {result})
/(I, I) -> I = CAST({0} // {1} AS {result})
%; mod(I, I) -> I = CASE WHEN {1} = 0 THEN <DIVISION_BY_ZERO: Division by zero> ELSE CAST({0} % {1} AS {result}) END
+; -; *; /; %(F, F) -> F = ({0} {name} {1})
-(A) -> A = (- {0})
+; -(decimal, decimal) -> sum = CAST(CAST({0} AS {result}) {name} CAST({1} AS {result}) AS {result})
*(decimal, decimal) -> product = CAST({0} * {1} AS {result})
/(decimal, decimal) -> quotient = CASE WHEN {1} = 0 THEN <DIVISION_BY_ZERO: Division by zero> ELSE CAST(trino_divide(CAST({0} AS VARCHAR), CAST({1} AS VARCHAR), {scale}) AS {result}) END
+; -(date, 'days') -> date = CAST({0} {name} {1} AS DATE)
+; -(date, interval year to month) -> date = CAST({0} {name} {1} AS DATE)
+; -(P, interval day to second) -> P = ({0} {name} {1})
+; -(M, interval year to month) -> M = ({0} {name} {1})
[](array(T), bigint) -> T = CASE WHEN {1} <= 0 THEN <INVALID_FUNCTION_ARGUMENT: SQL array indices start at 1> WHEN {1} > len({0}) THEN <INVALID_FUNCTION_ARGUMENT: Array subscript must be less than or equal to array length> ELSE list_extract({0}, {1}) END
[](map(varchar, V), varchar) -> V = CASE WHEN NOT list_contains(map_keys({0}), {1}) THEN <INVALID_FUNCTION_ARGUMENT: Key not present in map> ELSE map_extract_value({0}, {1}) END
ARRAY(T...) -> array(T) = CAST([{list}] AS {result})
if(boolean, T) -> T = (CASE WHEN {0} THEN {1} END)
if(boolean, T, T) -> T = (CASE WHEN {0} THEN {1} ELSE {2} END)
coalesce(T, T...) -> T = coalesce({list})
nullif(E, E) -> E = nullif({0}, {1})
greatest; least(D, D...) -> D = CASE WHEN len(list_filter([{list}], lambda x: x IS NULL)) > 0 THEN NULL ELSE {name}({list}) END
try(T) -> T = TRY({0})
CURRENT_DATE() -> date = CAST(now() AS DATE)
CURRENT_TIMESTAMP; now() -> zoned = date_trunc('millisecond', now())
"""

SCALARS = r"""
length(varchar) -> bigint = length({0})
upper; lower(varchar) -> varchar = CASE WHEN NOT regexp_full_match({0}, $sure) THEN <?> ELSE {name}({0}) END
trim; ltrim; rtrim(varchar) -> varchar = CASE WHEN regexp_matches({0}, $unsure) THEN <?> ELSE {name}({0}, ' ' || chr(9) || chr(10) || chr(11) || chr(12) || chr(13)) END
substr; substring(varchar, bigint) -> varchar = CASE WHEN {1} = 0 OR abs({1}) > length({0}) THEN '' ELSE substring({0}, {1}) END
substr; substring(varchar, bigint, bigint) -> varchar = CASE WHEN {1} = 0 OR abs({1}) > length({0}) OR {2} <= 0 THEN '' WHEN {1} IS NULL OR {2} IS NULL THEN NULL ELSE substring({0}, {1}, {2}) END
lpad; rpad(varchar, bigint, varchar) -> varchar = CASE WHEN {1} < 0 OR {1} > 1000 OR {2} = '' THEN <?> ELSE {name}({0}, CAST({1} AS INTEGER), {2}) END
replace(varchar, varchar) -> varchar = replace({0}, {1}, '')
replace(varchar, varchar, varchar) -> varchar = CASE WHEN {1} = '' THEN <?> ELSE replace({0}, {1}, {2}) END
reverse(varchar) -> varchar = CASE WHEN strlen({0}) > length({0}) THEN <?> ELSE reverse({0}) END
split(varchar, varchar) -> array(varchar) = CASE WHEN {1} = '' THEN <INVALID_FUNCTION_ARGUMENT: The delimiter may not be the empty string> WHEN {1} IS NOT NULL THEN string_split({0}, {1}) END
split_part(varchar, varchar, bigint) -> varchar = CASE WHEN {2} <= 0 THEN <INVALID_FUNCTION_ARGUMENT: Index must be greater than zero> WHEN {1} = '' THEN <?> WHEN {1} IS NOT NULL THEN list_extract(string_split({0}, {1}), {2}) END
strpos(varchar, varchar) -> bigint = CASE WHEN {1} = '' THEN 1 ELSE strpos({0}, {1}) END
starts_with(varchar, varchar) -> boolean = starts_with({0}, {1})
concat(varchar, varchar) -> varchar = ({0} || {1})
concat(varchar, varchar, varchar) -> varchar = ({0} || {1} || {2})
abs(A) -> A = abs({0})
floor; ceil; ceiling(F) -> F = {name}({0})
floor; ceil; ceiling(N) -> whole = CAST({name}({0}) AS {result})
truncate(F) -> F = trunc({0})
round(N) -> whole = CAST({0} AS {result})
round(N, 'digits') -> longer = CAST(round(CAST({0} AS {result}), {1}) AS {result})
round(F) -> F = CASE WHEN abs({0}) >= 1e15 THEN <?> WHEN {0} = 0 THEN 0e0 ELSE round({0}) END
round(F, 'digits') -> F = CASE WHEN abs({0}) * 1e{1} >= 1e12 OR abs(abs({0}) * 1e{1} - trunc(abs({0}) * 1e{1}) - 0.5) <= abs({0}) * 1e{1} * 1e-14 AND {0} * pow(2, {1} + 1) <> trunc({0} * pow(2, {1} + 1)) THEN <?> WHEN {0} = 0 THEN 0e0 ELSE round({0}, {1}) END
sqrt(double) -> double = CASE WHEN {0} < 0 THEN 'nan'::DOUBLE ELSE sqrt({0}) END
year; month; day; quarter; week(when) -> bigint = {name}({0})
hour; minute; second(M) -> bigint = {name}(CAST({0} AS TIMESTAMP))
day_of_month(when) -> bigint = day({0})
week_of_year(when) -> bigint = week({0})
day_of_week; dow(when) -> bigint = isodow({0})
day_of_year; doy(when) -> bigint = dayofyear({0})
year_of_week; yow(when) -> bigint = isoyear({0})
last_day_of_month(when) -> date = last_day({0})
date(when) -> date = CAST({0} AS DATE)
date(varchar) -> date = CASE WHEN regexp_full_match({0}, '[12][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]') THEN CAST({0} AS DATE) WHEN {0} IS NOT NULL THEN <?> END
to_iso8601(date) -> varchar = CAST({0} AS VARCHAR)
to_iso8601(timestamp with time zone) -> varchar = strftime(CAST({0} AS TIMESTAMP), '%Y-%m-%dT%H:%M:%S.%gZ')
to_unixtime(M) -> double = (epoch_us({0}) / 1000000e0)
date_diff('day or more', date, date) -> bigint = date_sub({0}, {1}, {2})
date_diff('unit', M, when) -> bigint = date_sub({0}, CAST({1} AS TIMESTAMP), {2})
date_diff('unit', when, M) -> bigint = date_sub({0}, {1}, CAST({2} AS TIMESTAMP))
date_trunc('day or more', date) -> date = CAST(date_trunc({0}, {1}) AS DATE)
date_trunc('unit', M) -> M = CAST(date_trunc({0}, CAST({1} AS TIMESTAMP)) AS {result})
date_add('days or more', bigint, date) -> date = CAST({2} + {0} * CAST({1} AS INTEGER) AS DATE)
date_add('step', bigint, M) -> M = ({2} + {0} * CAST({1} AS INTEGER))
date_format(when, 'format') -> varchar = strftime({0}, {1})
regexp_like(varchar, 'pattern') -> boolean = regexp_matches({0}, {1})
regexp_extract(varchar, 'pattern') -> varchar = CASE WHEN regexp_matches({0}, {1}) THEN regexp_extract({0}, {1}) END
regexp_extract(varchar, 'one group', 'one') -> varchar = CASE WHEN regexp_matches({0}, {1}) THEN regexp_extract({0}, {1}, {2}) END
regexp_replace(varchar, 'pattern') -> varchar = regexp_replace({0}, {1}, '', 'g')
regexp_replace(varchar, 'pattern', 'plain') -> varchar = regexp_replace({0}, {1}, {2}, 'g')
json_extract_scalar(varchar, 'path') -> varchar = trino_json_scalar({0}, {1})
json_format(json) -> varchar = {0}
json_parse('json texts') -> json = {0}
json_array_length(varchar) -> bigint = CASE WHEN json_type({0}) = 'ARRAY' THEN CAST(json_array_length({0}) AS BIGINT) END
map(array(D), array(V)) -> map(D, V) = CASE WHEN len({0}) <> len({1}) THEN <INVALID_FUNCTION_ARGUMENT: Key and value arrays must be the same length> ELSE map({0}, {1}) END
cardinality(array(T)) -> bigint = len({0})
cardinality(map(K, V)) -> bigint = cardinality({0})
element_at(array(T), bigint) -> T = CASE WHEN {1} = 0 THEN <INVALID_FUNCTION_ARGUMENT: SQL array indices start at 1> ELSE list_extract({0}, {1}) END
element_at(map(D, V), D) -> V = map_extract_value({0}, {1})
contains(array(D), D) -> boolean = CASE WHEN list_contains({0}, {1}) THEN true WHEN {0} IS NULL OR {1} IS NULL OR len(list_filter({0}, lambda x: x IS NULL)) > 0 THEN NULL ELSE false END
array_sort(array(S)) -> array(S) = list_sort({0}, 'ASC', 'NULLS LAST')
array_distinct(array(D)) -> array(D) = list_filter({0}, lambda x, i: CASE WHEN x IS NULL THEN len(list_filter({0}[:i], lambda y: y IS NULL)) = 1 ELSE list_position({0}, x) = i END)
array_max(array(D)) -> D = CASE WHEN len(list_filter({0}, lambda x: x IS NULL)) > 0 THEN NULL ELSE list_max({0}) END
array_min(array(D)) -> D = CASE WHEN len(list_filter({0}, lambda x: x IS NULL)) > 0 THEN NULL ELSE list_min({0}) END
array_join(array(varchar), varchar) -> varchar = CASE WHEN {1} IS NOT NULL THEN array_to_string(list_filter({0}, lambda x: x IS NOT NULL), {1}) END
array_join(array(varchar), varchar, varchar) -> varchar = CASE WHEN {1} IS NOT NULL AND {2} IS NOT NULL THEN array_to_string(list_transform({0}, lambda x: coalesce(x, {2})), {1}) END
flatten(array(array(T))) -> array(T) = flatten({0})
slice(array(T), bigint, bigint) -> array(T) = CASE WHEN {1} <= 0 OR {2} < 0 THEN <?> ELSE list_slice({0}, {1}, {1} + {2} - 1) END
sequence(bigint, bigint) -> array(bigint) = CASE WHEN {0} > {1} THEN <?> ELSE generate_series({0}, {1}) END
sequence(date, date) -> array(date) = CASE WHEN {0} > {1} THEN <?> ELSE CAST(generate_series({0}, {1}, INTERVAL 1 DAY) AS DATE[]) END
sequence(date, date, 'days') -> array(date) = CASE WHEN {0} > {1} OR {2} <> to_days(1) THEN <?> ELSE CAST(generate_series({0}, {1}, INTERVAL 1 DAY) AS DATE[]) END
map_keys(map(K, V)) -> array(K) = map_keys({0})
map_values(map(K, V)) -> array(V) = map_values({0})
transform(array(T), (T)->U) -> array(U) = list_transform({0}, {1})
filter(array(T), (T)->boolean) -> array(T) = list_filter({0}, {1})
any_match(array(T), (T)->boolean) -> boolean = CASE WHEN {0} IS NULL THEN NULL WHEN list_contains(list_transform({0}, {1}), true) THEN true WHEN len(list_filter(list_transform({0}, {1}), lambda m_: m_ IS NULL)) > 0 THEN NULL ELSE false END
all_match(array(T), (T)->boolean) -> boolean = CASE WHEN {0} IS NULL THEN NULL WHEN list_contains(list_transform({0}, {1}), false) THEN false WHEN len(list_filter(list_transform({0}, {1}), lambda m_: m_ IS NULL)) > 0 THEN NULL ELSE true END
"""

AGGREGATES = """
count() -> bigint = count(*)@
count(T) -> bigint = count(%{0})@
count_if(boolean) -> bigint = count(CASE WHEN {0} THEN 1 END)@
sum(I) -> bigint = CAST(sum(%{0})@ AS BIGINT)
sum(F) -> F = sum(%{0})@
sum(N) -> total = CAST(sum(%{0})@ AS {result})
avg(I) -> double = avg(%{0})@
avg(F) -> F = avg(%{0})@
avg(N) -> N = CAST(trino_divide(CAST(sum(%{0})@ AS VARCHAR), CAST(nullif(count(%{0})@, 0) AS VARCHAR), {scale}) AS {result})
min(S) -> S = min({0})@
max(D) -> D = max({0})@
max(F) -> F = coalesce(max(CASE WHEN NOT isnan({0}) THEN {0} END)@, max({0})@)
min_by(T, S) -> T = arg_min_null({0}, {1})@
max_by(T, D) -> T = arg_max_null({0}, {1})@
max_by(T, F) -> T = arg_max_null({0}, CASE WHEN NOT isnan({1}) THEN {1} END)@
arbitrary; any_value(T) -> T = any_value({0})@
bool_and; bool_or(boolean) -> boolean = {name}({0})@
every(boolean) -> boolean = bool_and({0})@
array_agg(T) -> array(T) = list(%{0}~)@
approx_distinct(D) -> bigint = CASE WHEN count(DISTINCT {0})@ > 100 THEN <?> ELSE count(DISTINCT {0})@ END
stddev; stddev_samp(double) -> double = stddev_samp({0})@
variance; var_samp(double) -> double = var_samp({0})@
stddev_pop; var_pop(double) -> double = {name}({0})@
bitwise_and_agg(bigint) -> bigint = bit_and({0})@
bitwise_or_agg(bigint) -> bigint = bit_or({0})@
bitwise_xor_agg(bigint) -> bigint = bit_xor({0})@
listagg(varchar, varchar) -> varchar = string_agg(%{0}, {1}~)@
"""

WINDOWS = """
row_number; rank; dense_rank() -> bigint = {name}()@
percent_rank; cume_dist() -> double = {name}()@
ntile('count') -> bigint = ntile({0})@
lag; lead; first_value; last_value(T) -> T = {name}({0})@
lag; lead; nth_value(T, 'count') -> T = {name}({0}, {1})@
lag; lead(T, 'count', T) -> T = {name}({0}, {1}, {2})@
"""

# {fail} is the error of CAST, NULL in TRY_CAST. Plain texts are cast. Texts with a character that
# Java never accepts fail. All others are NOT_SUPPORTED.
CASTS = r"""
varchar -> integer = CASE WHEN regexp_full_match({0}, '[+-]?[0-9]{1,18}') THEN coalesce(TRY_CAST({0} AS {result}), {fail}) WHEN regexp_matches({0}, '[!-*,./:-~]') OR {0} = '' THEN {fail} WHEN {0} IS NOT NULL THEN <?> END
varchar -> double = CASE WHEN regexp_full_match({0}, '[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?') THEN CAST({0} AS DOUBLE) WHEN regexp_matches({0}, '[!-*,/:-@\[-`{-~GHJKLMOQRSUVWZghjklmoqrsuvwz]') OR {0} = '' THEN {fail} WHEN {0} IS NOT NULL THEN <?> END
varchar -> decimal = CASE WHEN regexp_full_match({0}, '[+-]?[0-9]{1,{whole}}([.][0-9]{0,{scale}})?') THEN CAST({0} AS {result}) WHEN {0} IS NOT NULL THEN <?> END
varchar -> date = CASE WHEN regexp_full_match({0}, '[12][0-9]{3}-[0-9]{2}-[0-9]{2}') THEN coalesce(TRY_CAST({0} AS DATE), {fail}) WHEN regexp_matches({0}, '[!-*,./:-~]') OR NOT regexp_matches({0}, '[0-9]') THEN {fail} WHEN {0} IS NOT NULL THEN <?> END
varchar -> timestamp = CASE WHEN regexp_full_match({0}, '[12][0-9]{3}-[0-9]{2}-[0-9]{2} ([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,3})?') THEN coalesce(TRY_CAST({0} AS TIMESTAMP), {fail}) WHEN {0} IS NOT NULL THEN <?> END
varchar -> boolean = CASE WHEN lower({0}) IN ('true', 't', '1') THEN true WHEN lower({0}) IN ('false', 'f', '0') THEN false WHEN {0} IS NOT NULL THEN {fail} END
integer; decimal; boolean -> varchar = CAST({0} AS VARCHAR)
date -> varchar = CASE WHEN year({0}) NOT BETWEEN 1 AND 9999 THEN <?> ELSE CAST({0} AS VARCHAR) END
integer; decimal; boolean -> integer = CAST({0} AS {result})
integer; decimal -> double = CAST({0} AS DOUBLE)
integer; decimal -> decimal = CAST({0} AS {result})
integer; double -> boolean = ({0} <> 0)
double -> varchar = trino_double_text({0})
double -> integer = CASE WHEN NOT isfinite({0}) OR abs({0}) >= {limit} THEN <?> ELSE CAST(round({0}) AS {result}) END
double -> decimal = CASE WHEN abs({0}) * 1e{scale} >= 1e12 OR abs(abs({0}) * 1e{scale} - trunc(abs({0}) * 1e{scale}) - 0.5) <= abs({0}) * 1e{scale} * 1e-14 THEN <?> ELSE CAST({0} AS {result}) END
date; timestamp with time zone -> timestamp = CAST({0} AS TIMESTAMP)
date; timestamp -> timestamp with time zone = CAST(CAST({0} AS TIMESTAMP) AS TIMESTAMPTZ)
timestamp; timestamp with time zone -> date = CAST(CAST({0} AS TIMESTAMP) AS DATE)
timestamp -> varchar = left(strftime({0}, '%Y-%m-%d %H:%M:%S.%f'), {size})
timestamp with time zone -> varchar = left(strftime(CAST({0} AS TIMESTAMP), '%Y-%m-%d %H:%M:%S.%f'), {size}) || ' UTC'
json -> array(varchar) = CAST(CAST({0} AS JSON) AS {result})
json -> array(array(varchar)) = CAST(CAST({0} AS JSON) AS {result})
array(varchar) -> json = CAST(to_json({0}) AS VARCHAR)
map(varchar, varchar); map(varchar, bigint) -> json = CASE WHEN {0} IS NOT NULL THEN '{' || array_to_string(list_transform(list_sort(map_keys({0})), lambda k: to_json(k) || ':' || coalesce(CAST(to_json(map_extract_value({0}, k)) AS VARCHAR), 'null')), ',') || '}' END
"""

# Characters with equal case mapping and whitespace in Java and DuckDB, and the others
SURE = r"'[\x{1}-\x{de}\x{e0}-\x{17f}]*'"
UNSURE = (
    r"'[\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200f}\x{2028}-\x{202f}\x{205f}\x{3000}\x{feff}]'"
)
# Letters of date_format and their equivalents in DuckDB's strftime
LETTERS = dict(
    pair.split("=")
    for pair in "Y=%Y y=%y m=%m c=%-m d=%d e=%-d H=%H k=%-H i=%M s=%S S=%S T=%H:%M:%S a=%a W=%A b=%b "
    "M=%B j=%j p=%p".split()
)
UNITS = "second minute hour day week month quarter year".split()
STEPS = {u: f"to_{u}s(1)" for u in UNITS} | {"week": "to_days(7)", "quarter": "to_months(3)"}
# Patterns with equal meaning in Joni and RE2: plain characters, classes, groups, quantifiers
PATTERN = re.compile(
    r"\^?(?:\(|\)|\||(?:[A-Za-z0-9 _:;,=/@#%&<>~\"'-]|\\[dw.\-/()\[\]+*?|{}^$]|\.|"
    r"\[\^?(?:[A-Za-z0-9](?:-[A-Za-z0-9])?|\\[dw.]|[ _:;,=/@#.+*()])+-?\])"
    r"(?:[*+?]\??|\{\d{1,3}(?:,\d{0,3})?\}\??)?)*"
)


def quoted(text: str) -> str:
    """Return a text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _pattern(text: str) -> str | None:
    """Return a pattern unless it matches the empty text or repeats a group, where the engines
    differ."""
    try:
        unsure = not PATTERN.fullmatch(text) or re.match(text, "") or re.search(r"\)[*+?{]", text)
    except re.error:
        return None
    return None if unsure else quoted(text)


def _single_group(text: str) -> str | None:
    single = len(re.findall(r"(?<!\\)\(", text)) == 1 and "|" not in text
    return _pattern(text) if single else None


def _format(text: str) -> str | None:
    parts = re.findall(r"%.|[-/:., A-Za-z0-9_]", text)
    if "".join(parts) != text or any(p[0] == "%" and p[1:] not in LETTERS for p in parts):
        return None
    return quoted("".join(LETTERS[p[1]] if p[0] == "%" else p for p in parts))


def _matching(pattern: str) -> Callable[[str], str | None]:
    return lambda text: quoted(text) if re.fullmatch(pattern, text) else None


LITERALS: dict[str, Callable[[str], str | None]] = {
    "'unit'": lambda text: quoted(text.lower()) if text.lower() in UNITS else None,
    "'day or more'": lambda text: quoted(text.lower()) if text.lower() in UNITS[3:] else None,
    "'step'": lambda text: STEPS.get(text.lower()),
    "'days or more'": lambda text: STEPS[text.lower()] if text.lower() in UNITS[3:] else None,
    "'days'": lambda text: f"to_days({text})" if text.isdigit() else None,
    "'digits'": lambda text: text if re.fullmatch(r"[1-9]|1[0-2]", text) else None,
    "'count'": lambda text: text if re.fullmatch(r"[1-9]\d{0,8}", text) else None,
    "'one'": lambda text: text if text == "1" else None,
    "'format'": _format,
    "'pattern'": _pattern,
    "'one group'": _single_group,
    "'plain'": _matching(r"[^\\$]*"),
    "'json texts'": _matching(r"[\[\], ]*(\"[^\"\\]*\"[\[\], ]*)*"),
    "'path'": _matching(r"\$(\.[A-Za-z_]\w*|\[\d+\])*"),
}
FAMILIES: dict[str, Callable[[Type], bool]] = {
    "A": lambda kind: kind.is_number,  # all numbers
    "I": lambda kind: kind.is_integer,
    "F": lambda kind: kind.name == "double",
    "N": lambda kind: kind.name == "decimal",
    "D": lambda kind: not kind.parts and kind.name not in ("double", "json"),  # discrete
    "E": lambda kind: not kind.parts and kind.name not in ("double", "json"),  # all the same
    "S": lambda kind: not kind.parts and kind.name != "json",  # scalar
    "M": lambda kind: kind.is_time and kind != DATE,  # a moment
    "P": lambda kind: kind.is_time and kind.numbers >= (3,),  # a moment with milliseconds
    **dict.fromkeys("TUKV", lambda kind: True),
}
# Precision and scale of a decimal; more than 38 digits are not supported
RESULTS: dict[str, Callable[..., tuple[int, int]]] = {
    "sum": lambda p, s, q, r: (max(p - s, q - r) + max(s, r) + 1, max(s, r)),
    "product": lambda p, s, q, r: (p + q, s + r),
    "quotient": lambda p, s, q, r: (p + r + max(r - s, 0), max(s, r)),
    "longer": lambda p, s: (p + 1, s),
    "total": lambda p, s: (38, s),
    "whole": lambda p, s: (p - s + min(1, s), 0),
}


@dataclass(frozen=True)
class Signature:
    """One line of the tables above; `kind` is scalar, aggregate or window."""

    kind: str
    parameters: tuple[str, ...]
    result: str
    template: str


def split_types(text: str) -> list[str]:
    """Split `a, map(b, c)` at its outer commas."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text)] if text else []


def _read_table(**kinds: str) -> dict[str, list[Signature]]:
    table: dict[str, list[Signature]] = {}
    for kind, line in ((kind, line) for kind, text in kinds.items() for line in text.split("\n")):
        head, _, template = line.replace("$sure", SURE).replace("$unsure", UNSURE).partition(" = ")
        for names, inside, result in re.findall(r"^(.*?)\((.*)\) -> (.*)$", head):
            for name in names.split("; "):
                own = template.replace("{name}", name)
                signature = Signature(kind, tuple(split_types(inside)), result, own)
                table.setdefault(name, []).append(signature)
    return table


TABLE = _read_table(scalar=OPERATORS + SCALARS, aggregate=AGGREGATES, window=WINDOWS)
CAST_TEMPLATES = {
    (source, head.split(" -> ")[1]): template
    for head, _, template in (line.partition(" = ") for line in CASTS.strip().splitlines())
    for source in head.split(" -> ")[0].split("; ")
}


def failing(template: str, what: str, result: Type) -> str:
    """Return the template with `<CODE: message>` and `<?>` as errors of the result's type."""

    def error(place: re.Match[str]) -> str:
        text = f"NOT_SUPPORTED: {what} {NOT_PART}" if place[1] == "?" else place[1]
        return f"CAST(error({quoted(text)}) AS {result.duckdb})"

    return re.sub(r"<([A-Z_]+: [^<>]*|\?)>", error, template)


# Functions that no DuckDB expression computes exactly. NULL in, NULL out.
def divide(left: str, right: str, scale: int) -> str:
    """Divide decimals exactly to the scale, rounding half up."""
    with decimal.localcontext(decimal.Context(prec=120)):
        quotient = decimal.Decimal(left) / decimal.Decimal(right)
        unit = decimal.Decimal(1).scaleb(-scale)
        return format(quotient.quantize(unit, decimal.ROUND_HALF_UP), "f")


def double_text(value: float) -> str:
    """Return the text of CAST(double AS varchar), always with an exponent."""
    if value == 0 or not math.isfinite(value):
        names = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity", "0.0": "0E0", "-0.0": "-0E0"}
        return names[repr(value)]
    return scientific(value)


JSON = json.JSONDecoder(
    object_pairs_hook=lambda pairs: dict(reversed(pairs)),  # the first of duplicate members wins
    parse_int=str,  # keep numbers as written
    parse_float=str,
    parse_constant=int,  # fails, since JSON has no NaN
)


def json_scalar(text: str | None, path: str) -> str | None:
    """Return json_extract_scalar for a path of plain member names and positions."""
    if text is None:
        return None
    try:
        value: Any = JSON.decode(text)
    except (ValueError, RecursionError):
        raise ValueError(f"NOT_SUPPORTED: broken JSON {NOT_PART}") from None
    for name, position in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        if name and isinstance(value, dict) and name in value:
            value = value[name]
        elif position and isinstance(value, list) and int(position) < len(value):
            value = value[int(position)]
        else:
            return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else None


def register(connection: duckdb.DuckDBPyConnection) -> None:
    """Register the Python functions on a connection as trino_<name>."""
    create: Callable[..., Any] = connection.create_function
    create("trino_divide", divide, ["VARCHAR", "VARCHAR", "INTEGER"], "VARCHAR")
    create("trino_double_text", double_text, ["DOUBLE"], "VARCHAR")
    create("trino_json_scalar", json_scalar, ["VARCHAR"] * 2, "VARCHAR", null_handling="special")
