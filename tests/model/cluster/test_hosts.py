import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.cluster.hosts import check_environment_files, read_hostfile
from pipeline.errors import UserError

LINES = st.lists(
    st.one_of(
        st.from_regex(r"[a-z0-9.-]{1,8}[ \t]{1,3}slots=[0-9]{1,3}( #.*)?", fullmatch=True),
        st.sampled_from(["", "  ", "# a comment", "  # another", "host", "host slots", "host slots=", "a slots=2"]),
    ),
    max_size=6,
)


@settings(deadline=None)  # the first import of DeepSpeed takes seconds
@given(LINES)
def test_hostfile_is_read_as_by_deepspeed(tmp_path_factory, lines):
    from deepspeed.launcher.runner import _parse_hostfile

    path = tmp_path_factory.mktemp("hostfile") / "hostfile"
    path.write_text("".join(f"{line}\n" for line in lines))
    try:
        with path.open() as file:
            expected = list(_parse_hostfile(file.readlines()).items())
    except ValueError:
        expected = None
    try:
        got = list(read_hostfile(path).items())
    except UserError:
        got = None
    assert got == expected


@pytest.mark.parametrize("line", ["", "# comment", "NAME"])
def test_environment_file_with_a_line_that_deepspeed_rejects_is_an_error(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".deepspeed_env").write_text("A=1\nB=2 3\n")
    assert check_environment_files() == [str(tmp_path / ".deepspeed_env")]
    (tmp_path / ".deepspeed_env").write_text(f"A=1\n{line}\nB=2\n")
    with pytest.raises(UserError, match=r"\.deepspeed_env, line 2: expected NAME=VALUE"):
        check_environment_files()
