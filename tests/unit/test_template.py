"""The template passes the linter with the state machine in it, and says what the design promises."""
from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local.template import ROOT, Template


def lint(path: Path) -> str:
    command = shutil.which('cfn-lint', path=str(Path(sys.executable).parent)) or shutil.which('cfn-lint')
    if command is None:
        pytest.skip('cfn-lint is not installed')
    finished = subprocess.run([command, str(path)], capture_output=True, text=True)
    return finished.stdout + finished.stderr


def test_the_template_has_no_findings() -> None:
    assert lint(ROOT / 'template.yaml') == ''


def test_the_state_machine_has_no_findings_within_a_template(tmp_path: Path) -> None:
    definition = json.loads(Template.load().definition())
    template = {'AWSTemplateFormatVersion': '2010-09-09', 'Resources': {'StateMachine': {
        'Type': 'AWS::StepFunctions::StateMachine',
        'Properties': {'RoleArn': 'arn:aws:iam::123456789012:role/steps', 'Definition': definition}}}}
    path = tmp_path / 'template.json'
    path.write_text(json.dumps(template))
    assert lint(path) == ''


def test_every_placeholder_of_the_state_machine_is_filled_in_and_none_is_left_over() -> None:
    template = Template.load()
    assert '${' not in template.definition()
    source = (ROOT / 'stepfunctions' / 'delta-lake.json').read_text('utf-8')
    names = template.properties('StateMachine')['DefinitionSubstitutions']
    assert [name for name in names if '${' + name + '}' not in source] == []


def test_operators_find_everything_under_its_name() -> None:
    template = Template.load()
    found = ('GlueJob', 'Crawler', 'Database', 'ArchiveFunction')
    names = {logical_id: template.ref(logical_id) for logical_id in found}
    assert names == {'GlueJob': 'Lakehouse', 'Crawler': 'delta-crawler', 'Database': 'delta-lakehouse',
                     'ArchiveFunction': 'Moves3Objects'}
    assert template.ref('Topic').endswith(':etl')
    assert template.outputs()['RawZone'].endswith('/land-folder/Data/')


def test_two_environments_share_no_name() -> None:
    prod, dev = Template.load(), Template.load(parameters={'EnvironmentName': 'dev'})
    named = ['AWS::S3::Bucket', 'AWS::SQS::Queue', 'AWS::SNS::Topic', 'AWS::Events::Rule', 'AWS::Pipes::Pipe',
             'AWS::Scheduler::Schedule', 'AWS::Lambda::Function', 'AWS::StepFunctions::StateMachine', 'AWS::Glue::Job',
             'AWS::Glue::Crawler', 'AWS::Glue::Database', 'AWS::Athena::WorkGroup', 'AWS::Logs::LogGroup',
             'AWS::CloudWatch::Alarm']
    shared = [logical_id for kind in named for logical_id, _ in prod.of_type(kind)
              if prod.ref(logical_id) == dev.ref(logical_id)]
    assert shared == []


def test_the_job_is_the_only_writer_and_never_repeated_behind_the_state_machines_back() -> None:
    job = Template.load().properties('GlueJob')
    assert job['ExecutionProperty'] == {'MaxConcurrentRuns': 1} and job['MaxRetries'] == 0
    assert job['GlueVersion'] == '6.0'


def test_no_lifecycle_rule_touches_what_belongs_to_delta() -> None:
    rules = Template.load().properties('LakeBucket')['LifecycleConfiguration']['Rules']
    removing = [rule for rule in rules if 'ExpirationInDays' in rule or 'Transitions' in rule]
    assert [rule['Prefix'] for rule in removing] == ['glue-temp/']
