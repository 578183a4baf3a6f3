-- Twenty queries of analysts in Athena's dialect, on the small lake of lake.py.
-- Each begins with its question; `--=` lines hold the rows that a person worked out by hand, as JSON, one row a line.
-- `--spark` lines hold the same query in Spark's dialect, where that differs.

-- How many orders and how much money came in on each day?
SELECT date, count(*) AS orders, sum(total_amount) AS revenue FROM clean_orders GROUP BY date ORDER BY date;
--= ["2025-04-01", "2", "300.0"]
--= ["2025-04-02", "1", "100.0"]
--= ["2025-04-03", "1", null]
--= ["2025-05-01", "1", "10.5"]

-- What sells, by department?
SELECT p.department, count(*) AS items, count(DISTINCT i.order_id) AS orders
FROM "delta-lakehouse".clean_orders_items i JOIN "delta-lakehouse".clean_products p ON p.product_id = i.product_id
GROUP BY 1 ORDER BY items DESC;
--spark SELECT p.department, count(*) AS items, count(DISTINCT i.order_id) AS orders FROM clean_orders_items i JOIN clean_products p ON p.product_id = i.product_id
--spark GROUP BY 1 ORDER BY items DESC
--= ["Dairy", "4", "3"]
--= ["Bakery", "2", "2"]

-- Which orders have no items?
SELECT o.order_id FROM clean_orders o LEFT JOIN clean_orders_items i ON i.order_id = o.order_id WHERE i.id IS NULL;
--= ["o4"]

-- What did each customer spend before this order?
SELECT order_id, sum(total_amount) OVER (PARTITION BY user_id ORDER BY order_timestamp
       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS spent_before
FROM clean_orders ORDER BY order_id;
--= ["o1", null]
--= ["o2", null]
--= ["o3", "260.0"]
--= ["o4", null]
--= ["o5", "40.0"]

-- How many whole days lie between a customer's orders?
SELECT order_id, date_diff('day', lag(order_timestamp) OVER (PARTITION BY user_id ORDER BY order_timestamp), order_timestamp) AS days
FROM clean_orders WHERE user_id IN ('u1', 'u2') ORDER BY order_id;
--spark SELECT order_id, timestampdiff(DAY, lag(order_timestamp) OVER (PARTITION BY user_id ORDER BY order_timestamp), order_timestamp) AS days
--spark FROM clean_orders WHERE user_id IN ('u1', 'u2') ORDER BY order_id
--= ["o1", null]
--= ["o2", null]
--= ["o3", "0"]
--= ["o5", "29"]

-- The last order of each customer
SELECT user_id, order_id FROM (SELECT user_id, order_id, row_number() OVER (PARTITION BY user_id ORDER BY order_timestamp DESC) AS n
FROM clean_orders) WHERE n = 1 ORDER BY user_id;
--= ["u1", "o3"]
--= ["u2", "o5"]
--= ["u3", "o4"]

-- Revenue by month, with the month as a date
SELECT date_trunc('month', date) AS month, sum(total_amount) AS revenue FROM clean_orders GROUP BY date_trunc('month', date) ORDER BY 1;
--spark SELECT trunc(date, 'MONTH') AS month, sum(total_amount) AS revenue FROM clean_orders GROUP BY 1 ORDER BY 1
--= ["2025-04-01", "400.0"]
--= ["2025-05-01", "10.5"]

-- Orders in the week from 1 April, by weekday (1 is Monday)
SELECT day_of_week(date) AS weekday, count(*) AS orders FROM clean_orders
WHERE date BETWEEN DATE '2025-04-01' AND date_add('day', 6, DATE '2025-04-01') GROUP BY 1 ORDER BY 1;
--spark SELECT weekday(date) + 1 AS weekday, count(*) AS orders FROM clean_orders
--spark WHERE date BETWEEN DATE '2025-04-01' AND date_add(DATE '2025-04-01', 6) GROUP BY 1 ORDER BY 1
--= ["2", "2"]
--= ["3", "1"]
--= ["4", "1"]

-- How many customers, about?
SELECT approx_distinct(user_id) AS customers FROM clean_orders;
--spark SELECT approx_count_distinct(user_id) AS customers FROM clean_orders
--= ["3"]

-- The median of an order's amount: of four amounts the second
SELECT array_sort(array_agg(total_amount))[(count(total_amount) + 1) / 2] AS median FROM clean_orders;
--spark SELECT element_at(sort_array(collect_list(total_amount)), cast((count(total_amount) + 1) div 2 AS int)) AS median FROM clean_orders
--= ["40.0"]

-- Why are rows rejected or parked?
SELECT reason, count(*) AS n FROM rejected_records CROSS JOIN UNNEST(reasons) AS t(reason) GROUP BY reason ORDER BY n DESC, reason;
--spark SELECT reason, count(*) AS n FROM rejected_records LATERAL VIEW explode(reasons) t AS reason GROUP BY reason ORDER BY n DESC, reason
--= ["orphan_order", "2"]
--= ["invalid_date", "1"]
--= ["invalid_total_amount", "1"]
--= ["missing_id", "1"]
--= ["orphan_product", "1"]
--= ["too_few_fields", "1"]

-- Every reason of a row, in its order
SELECT line, n, reason FROM rejected_records CROSS JOIN UNNEST(reasons) WITH ORDINALITY AS t(reason, n)
WHERE cardinality(reasons) > 1 AND dataset = 'order_items' ORDER BY line, n;
--spark SELECT line, n + 1 AS n, reason FROM rejected_records LATERAL VIEW posexplode(reasons) t AS n, reason
--spark WHERE size(reasons) > 1 AND dataset = 'order_items' ORDER BY line, n
--= ["2", "1", "orphan_order"]
--= ["2", "2", "orphan_product"]
--= ["7", "1", "missing_id"]
--= ["7", "2", "invalid_date"]

-- Which order does a parked item wait for?
SELECT element_at(fields, 'id') AS id, element_at(fields, 'order_id') AS waits_for FROM rejected_records
WHERE status = 'parked' AND contains(reasons, 'orphan_order') ORDER BY 1;
--spark SELECT fields['id'] AS id, fields['order_id'] AS waits_for FROM rejected_records
--spark WHERE status = 'parked' AND array_contains(reasons, 'orphan_order') ORDER BY 1
--= ["i7", "o7"]
--= ["i8", "o8"]

-- The texts of a rejected row, one a line
SELECT k, v FROM rejected_records CROSS JOIN UNNEST(fields) AS t(k, v) WHERE dataset = 'orders' ORDER BY k;
--spark SELECT k, v FROM rejected_records LATERAL VIEW explode(fields) t AS k, v WHERE dataset = 'orders' ORDER BY k
--= ["order_id", "o9"]
--= ["total_amount", "abc"]

-- Rows read in each run, out of the run's JSON
SELECT run_id, cast(json_extract_scalar(summary, '$.datasets.orders.rows_read') AS bigint) AS rows_read,
       json_extract_scalar(summary, '$.timings.merge') AS merge_seconds
FROM etl_runs ORDER BY run_id;
--spark SELECT run_id, cast(get_json_object(summary, '$.datasets.orders.rows_read') AS bigint), get_json_object(summary, '$.timings.merge')
--spark FROM etl_runs ORDER BY run_id
--= ["run-1", "4", "4.25"]
--= ["run-2", "2", "4.25"]

-- How long did each run take, and which version of the orders did it leave?
SELECT run_id, date_diff('second', started_at, finished_at) AS seconds, table_versions['clean_orders'] AS version FROM etl_runs ORDER BY 1;
--spark SELECT run_id, timestampdiff(SECOND, started_at, finished_at), table_versions['clean_orders'] FROM etl_runs ORDER BY 1
--= ["run-1", "90", "1"]
--= ["run-2", "90", "2"]

-- The share of items that were bought again: whole numbers divide as whole numbers, 100.0 keeps one digit
SELECT count_if(reordered) AS again, count(*) AS items, count_if(reordered) / count(*) AS whole, 100.0 * count_if(reordered) / 7 AS percent
FROM clean_orders_items;
--spark SELECT count_if(reordered), count(*), count_if(reordered) div count(*), cast(100.0 * count_if(reordered) / 7 AS decimal(38, 1))
--spark FROM clean_orders_items
--= ["3", "6", "0", "42.9"]

-- The largest order of each day, and when it came
SELECT date, max_by(order_id, total_amount) AS largest, max(order_timestamp) AS last_at,
       date_format(max(order_timestamp), '%H:%i') AS clock FROM clean_orders GROUP BY date HAVING count(total_amount) > 0 ORDER BY date;
--spark SELECT date, max_by(order_id, total_amount), max(order_timestamp), date_format(max(order_timestamp), 'HH:mm')
--spark FROM clean_orders GROUP BY date HAVING count(total_amount) > 0 ORDER BY date
--= ["2025-04-01", "o1", "2025-04-01 23:30:00.000 UTC", "23:30"]
--= ["2025-04-02", "o3", "2025-04-02 08:15:00.000 UTC", "08:15"]
--= ["2025-05-01", "o5", "2025-05-01 12:00:00.123 UTC", "12:00"]

-- Baskets: the products of each order in the order in which they were put in
WITH baskets AS (SELECT order_id, array_join(array_agg(product_id ORDER BY add_to_cart_order), '>') AS basket, count(*) AS n
FROM clean_orders_items GROUP BY order_id)
SELECT basket, count(*) AS orders FROM baskets WHERE n > 1 GROUP BY basket ORDER BY basket;
--spark WITH baskets AS (SELECT order_id, array_join(transform(array_sort(collect_list(struct(add_to_cart_order, product_id))), s -> s.product_id), '>')
--spark AS basket, count(*) AS n FROM clean_orders_items GROUP BY order_id)
--spark SELECT basket, count(*) AS orders FROM baskets WHERE n > 1 GROUP BY basket ORDER BY basket
--= ["p1>p2", "1"]
--= ["p1>p3", "1"]

-- Days without orders
SELECT d FROM UNNEST(sequence(DATE '2025-04-01', DATE '2025-04-05', INTERVAL '1' DAY)) AS t(d)
WHERE d NOT IN (SELECT date FROM clean_orders) ORDER BY d;
--spark SELECT d FROM (SELECT explode(sequence(DATE '2025-04-01', DATE '2025-04-05', INTERVAL '1' DAY)) AS d)
--spark WHERE d NOT IN (SELECT date FROM clean_orders) ORDER BY d
--= ["2025-04-04"]
--= ["2025-04-05"]
