"""What commands, deployer and tests share. It knows nothing of the AWS that `local` plays."""


class SetupError(Exception):
    """This machine lacks something; the message is one line that says what to do."""
