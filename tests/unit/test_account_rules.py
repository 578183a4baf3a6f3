"""What an adopting company's account demands: other accounts by name, retention, an own key, names
of roles, a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from client.template import Template
from tests.unit.test_iam import Use, covers, listed

SHOP, ANALYST = "arn:aws:iam::111111111111:role/shop", "arn:aws:iam::222222222222:role/analyst"
OPEN = Template.load(parameters={"UploaderArns": SHOP, "ReaderArns": f"{ANALYST},{SHOP}x"})
RAW, LAKE = OPEN.attribute("RawBucket", "Arn"), OPEN.attribute("LakeBucket", "Arn")
KEY = OPEN.attribute("DataKey", "Arn")


def may(template: Template, principal: str, use: Use) -> bool:
    """Return whether a policy of a bucket or the key lets somebody of another account in."""
    policies = [
        template.properties(policy)["PolicyDocument"]
        for policy in ("RawBucketPolicy", "LakeBucketPolicy", "ArchiveBucketPolicy")
    ]
    policies += [template.properties("DataKey")["KeyPolicy"]]
    statements = [statement for policy in policies for statement in policy["Statement"]]
    return any(
        statement["Effect"] == "Allow"
        and names(statement, principal)
        and covers({**statement, "Resource": key_or(statement["Resource"])}, use)
        for statement in statements
    )


def names(statement: Mapping[str, Any], principal: str) -> bool:
    principals = statement["Principal"]
    return isinstance(principals, Mapping) and principal in listed(principals.get("AWS", []))


def key_or(resource: Any) -> Any:
    """Return the resource; `*` in the policy of a key is that key."""
    return KEY if resource == "*" else resource


def key_use(action: str, bucket: str) -> Use:
    context = {"kms:ViaService": "s3.us-east-1.amazonaws.com"}
    return Use(action, KEY, {**context, "kms:EncryptionContext:aws:s3:arn": bucket})


UPLOAD = [
    Use("s3:PutObject", f"{RAW}/land-folder/Data/orders/a.csv"),
    Use("s3:AbortMultipartUpload", f"{RAW}/land-folder/Data/orders/a.csv"),
    key_use("kms:GenerateDataKey", f"{RAW}/land-folder/Data/orders/a.csv"),
    key_use("kms:Decrypt", RAW),
]
READ = [
    Use("s3:GetObject", f"{LAKE}/lakehouse-dwh/clean_orders/_delta_log/0.json"),
    Use("s3:ListBucket", LAKE, {"s3:prefix": "lakehouse-dwh/clean_orders/"}),
    key_use("kms:Decrypt", LAKE),
]
NOBODY = [
    Use("s3:GetObject", f"{RAW}/land-folder/Data/orders/a.csv"),
    Use("s3:PutObject", f"{RAW}/elsewhere/a.csv"),
    Use("s3:GetObject", f"{LAKE}/runs/x/summary.json"),
    Use("s3:GetObject", f"{LAKE}/rejected/rejected_records/a.parquet"),
    Use("s3:PutObject", f"{LAKE}/lakehouse-dwh/clean_orders/a.parquet"),
    Use("s3:ListBucket", LAKE, {"s3:prefix": "runs/"}),
    Use("s3:ListBucket", RAW, {"s3:prefix": ""}),
    Use("kms:Decrypt", KEY),
    key_use("kms:GenerateDataKey", LAKE),
]


def test_uploaders_and_readers_of_other_accounts_may_do_just_that() -> None:
    assert [use for use in UPLOAD if not may(OPEN, SHOP, use)] == []
    assert [use for use in READ if not may(OPEN, ANALYST, use)] == []
    assert [use for use in READ if may(OPEN, SHOP, use)] == []
    assert [use for use in UPLOAD if may(OPEN, ANALYST, use)] == []
    assert [use for use in NOBODY for who in (SHOP, ANALYST) if may(OPEN, who, use)] == []


def test_nobody_of_another_account_is_let_in_unless_named() -> None:
    closed = Template.load()
    uses = [*UPLOAD, *READ]
    assert [use for use in uses if may(closed, SHOP, use) or may(closed, "*", use)] == []


def expirations(template: Template) -> dict[str, int]:
    """Prefix of a lifecycle rule -> days until its current objects are deleted."""
    return {
        rule["Prefix"]: rule["ExpirationInDays"]
        for name in ("LakeBucket", "ArchiveBucket")
        for rule in template.properties(name)["LifecycleConfiguration"]["Rules"]
        if "ExpirationInDays" in rule
    }


def test_what_is_kept_for_ever_may_get_an_end() -> None:
    assert expirations(Template.load()) == {"glue-temp/": 7}
    parameters = {"ArchiveDays": 400, "RunsDays": 500, "RejectedDays": 90}
    ends = {"archived/": 400, "runs/": 500, "rejected/files/": 90}
    assert expirations(Template.load(parameters=parameters)) == {"glue-temp/": 7, **ends}


def test_a_key_of_the_account_takes_the_place_of_an_own_one() -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/company"
    template = Template.load(parameters={"KeyArn": key})
    assert (
        dict(template.of_type("AWS::KMS::Key")) == {} == dict(template.of_type("AWS::KMS::Alias"))
    )
    for _, bucket in template.of_type("AWS::S3::Bucket"):
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"] == key
    assert template.properties("Topic")["KmsMasterKeyId"] == key
    resources = template.document["Resources"]
    others = {name: resources[name] for name in resources if not name.startswith("DataKey")}
    assert "delta-lake-DataKey" not in str(template.resolve(others)), "nothing refers to our own"


@pytest.mark.parametrize("prefix", ["", "app-"])
def test_the_names_of_roles_begin_as_the_account_demands(prefix: str) -> None:
    template = Template.load(parameters={"RolePrefix": prefix, "EnvironmentName": "a123456789"})
    names = [role.get("RoleName") for _, role in template.of_type("AWS::IAM::Role")]
    if not prefix:
        assert set(names) == {None}, "CloudFormation makes them up"
        return
    assert len(set(names)) == len(names) == 7
    longest = len("ap-southeast-1") - len("us-east-1") + 12 - len(prefix)
    for name in names:
        assert name.startswith(f"{prefix}delta-lake-a123456789-") and len(name) + longest <= 64


def test_a_budget_looks_at_the_environments_tag() -> None:
    assert dict(Template.load().of_type("AWS::Budgets::Budget")) == {}
    parameters = {"MonthlyBudgetUsd": 50, "AlertEmail": "ann@example.com"}
    ((_, made),) = Template.load(parameters=parameters).of_type("AWS::Budgets::Budget")
    assert made["Budget"]["BudgetLimit"] == {"Amount": 50, "Unit": "USD"}
    assert made["Budget"]["CostFilters"] == {"TagKeyValue": ["user:environment$prod"]}
    mailed = {
        subscriber["Address"]
        for n in made["NotificationsWithSubscribers"]
        for subscriber in n["Subscribers"]
    }
    assert mailed == {"ann@example.com"}
