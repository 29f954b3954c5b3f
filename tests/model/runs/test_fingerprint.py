from model.runs.fingerprint import find_differences, format_differences, hash_code


def test_each_difference_is_listed_once():
    def facts(torch, key):
        return {"shards": {"shard key": key}, "config": {}, "software": {"torch": torch}}

    same, other = ("host1", facts("2.13", "a")), ("host2", facts("2.12", "a"))
    assert find_differences([same, same]) == {}
    by_kind = find_differences([same, same, other, other])
    assert by_kind == {"software": ["torch: 2.13 on host1, but 2.12 on host2"]}
    assert format_differences(by_kind).startswith("the hosts do not agree:\n  torch: 2.13 on host1")


def test_change_in_any_code_folder_changes_the_hash(tmp_path):
    for name in ("pipeline/a.py", "pipeline/io/b.py", "model/c.py", "model/training/deep/d.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
        hashes = [hash_code(tmp_path)]
        path.write_text("x = 2\n")
        hashes.append(hash_code(tmp_path))
        path.rename(path.with_name("renamed.py"))
        hashes.append(hash_code(tmp_path))
        assert len(set(hashes)) == 3
    for ignored in ("model/__pycache__/c.cpython-311.pyc", "sql/01.sql", "tests/t.py"):
        (tmp_path / ignored).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ignored).write_bytes(b"x")
    assert hash_code(tmp_path) == hashes[-1]
