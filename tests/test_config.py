"""Run configurations: reading, errors, writing."""

import hashlib
import json
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from lim_keras.config import LossSection, ModelSection, RunConfig, fields
from lim_keras.config_file import load_config
from lim_keras.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    """Write text to a configuration file and return its path."""

    def write_text(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_only_the_name_is_required_and_defaults_are_the_papers_loss(write):
    config = load_config(write("name: bare\n"))
    assert config.name == "bare"
    assert (config.loss.landslide_weight, config.loss.background_weight, config.loss.gamma) == (0.75, 0.25, 1.75)
    assert config.sampling.mode == "windows"
    assert config.folds == 5
    assert config.gsd_m is None


def test_every_key_of_a_section_is_read(write):
    config = load_config(
        write("name: a\nsampling:\n  mode: windows\n  size: 192\n  gsd_m: 0.8\n  scale_jitter: [1, 2]\n")
    )
    assert config.sampling.size == 192
    assert config.sampling.gsd_m == 0.8
    assert config.sampling.scale_jitter == (1.0, 2.0)


def test_exponents_without_a_point_are_numbers(write):
    # YAML 1.1 reads 1e-3 as text; 1.0e-3 as a number
    assert load_config(write("name: a\ntraining: {learning_rate: 1e-3}\n")).training.learning_rate == 0.001
    assert load_config(write("name: a\ntraining: {learning_rate: 1.0e-3}\n")).training.learning_rate == 0.001


def test_configuration_cannot_be_changed(write):
    config = load_config(write("name: a\n"))
    with pytest.raises(ValidationError, match="frozen"):
        config.training.epochs = 3


def test_every_key_is_described():
    undescribed = [key for key, field in fields() if not field.description and not _is_section(field)]
    assert undescribed == []


def _is_section(field) -> bool:
    return isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields")


@pytest.mark.parametrize("reduction, stride", [(1, 32), (2, 64), (4, 128)])
def test_stride_of_the_network(reduction, stride):
    assert ModelSection(input_reduction=reduction).stride == stride


class TestOverrides:
    def test_value_is_yaml_and_the_last_wins(self, write):
        path = write("name: a\ntraining: {epochs: 10}\n")
        overrides = [
            "training.epochs=2",
            "training.epochs=3",
            "sampling.scale_jitter=[0.8, 1.2]",
            "training.tensorboard=false",
            "training.learning_rate=3e-4",
            "gsd_m=0.5",
        ]
        config = load_config(path, overrides)
        assert config.training.epochs == 3
        assert config.sampling.scale_jitter == (0.8, 1.2)
        assert config.training.tensorboard is False
        assert config.training.learning_rate == 0.0003
        assert config.gsd_m == 0.5

    def test_null_takes_a_value_back(self, write):
        path = write("name: a\ntraining: {early_stopping: 5}\n")
        assert load_config(path, ["training.early_stopping=null"]).training.early_stopping is None

    def test_value_may_hold_equals_signs(self, write):
        path = write("name: a\n")
        assert load_config(path, ["model.encoder_weights=w=1.h5"]).model.encoder_weights == "w=1.h5"

    def test_unknown_key(self, write):
        assert refusal(write("name: a\n"), "training.epoch=3") == (
            "override training.epoch=3: Unknown key `training.epoch`. Did you mean `training.epochs`?"
        )

    def test_wrong_value_names_the_option_not_the_file(self, write):
        assert refusal(write("name: a\n"), "loss.gamma=-1") == (
            "override loss.gamma=-1: Invalid value for key `loss.gamma`. "
            "Expected a number greater than or equal to 0 (focusing exponent; 0 is weighted cross-entropy). "
            "Received: -1."
        )

    def test_wrong_value_inside_an_overridden_section_names_the_option(self, write):
        assert refusal(write("name: a\n"), "loss={gamma: -1}").startswith("override loss={gamma: -1}: Invalid value")

    @pytest.mark.parametrize("override", ["training.epochs", "=3", ""])
    def test_not_a_pair(self, write, override):
        message = refusal(write("name: a\n"), override)
        assert "expected key=value, such as training.epochs=3" in message
        assert repr(override) in message

    def test_bad_yaml(self, write):
        assert refusal(write("name: a\n"), "folds=[3").startswith("override folds=[3, line 1, column 3: ")

    def test_key_inside_what_the_file_made_a_number(self, write):
        message = refusal(write("name: a\nloss: 3\n"), "loss.gamma=1")
        assert message == "override loss.gamma=1: expected a section of keys at `loss` in the file. Received: 3."


class TestUnknownKeys:
    @pytest.mark.parametrize(
        "text, key, nearest",
        [
            ("nam: a\n", "nam", "name"),
            ("name: a\ntrainin: {}\n", "trainin", "training"),
            ("name: a\ntraining: {learning_rte: 1}\n", "training.learning_rte", "training.learning_rate"),
            # right word, wrong section
            ("name: a\ngamma: 2\n", "gamma", "loss.gamma"),
            ("name: a\nmodel: {epochs: 2}\n", "model.epochs", "training.epochs"),
        ],
    )
    def test_nearest_valid_key_is_named(self, write, text, key, nearest):
        path = write(text)
        assert f"{path}: Unknown key `{key}`. Did you mean `{nearest}`?" in refusal(path)

    def test_without_a_near_one_the_section_is_listed(self, write):
        message = refusal(write("name: a\nloss: {qqqq: 1}\n"))
        expected = "loss.landslide_weight, loss.background_weight, loss.gamma, loss.dice_weight"
        assert message.endswith(f"Unknown key `loss.qqqq`. Expected one of: {expected}.")


class TestWrongValues:
    @pytest.mark.parametrize(
        "override, expected, received",
        [
            ("name=7", "a valid string (name of run folder and bundle", "7"),
            ("seed=-1", "a number greater than or equal to 0", "-1"),
            ("seed=4294967296", "a number less than 4294967296", "4294967296"),
            ("seed=1.5", "a valid integer", "1.5"),
            ("gsd_m=0", "a number greater than 0", "0"),
            ("model.name=resnet", "'fcn', 'fcn_fl', 'unet' or 'segnet'", "'resnet'"),
            ("model.encoder=xception", "'vgg16', 'mobilenetv2'", "'xception'"),
            ("model.encoder_weights=null", "a valid string", "None"),
            ("model.input_reduction=3", "1, 2 or 4", "3"),
            ("model.decoder_channels=0", "a number greater than or equal to 1", "0"),
            ("model.dropout=1", "a number less than 1", "1"),
            ("loss.landslide_weight=0", "a number greater than 0", "0"),
            ("loss.background_weight=-0.1", "a number greater than 0", "-0.1"),
            ("loss.gamma=.nan", "a finite number", "nan"),
            ("loss=3", "a section with keys loss.landslide_weight, ", "3"),
            ("sampling.size=big", "a valid integer", "'big'"),
            ("sampling.size=100", "a multiple of 32, which is 32 x model.input_reduction", "100"),
            ("sampling.scale_jitter=[1.4, 0.7]", "[lowest, highest] with 0 < lowest <= highest", "[1.4, 0.7]"),
            ("sampling.scale_jitter=[0, 1]", "[lowest, highest] with 0 < lowest <= highest", "[0.0, 1.0]"),
            ("sampling.scale_jitter=[1]", "a list of two numbers", "[1]"),
            ("sampling.scale_jitter=1", "a list of two numbers", "1"),
            ("sampling.scale_jitter=[1, 2, 3]", "a list of two numbers", "[1, 2, 3]"),
            ("sampling.scale_jitter=[1, x]", "a valid number", "'x'"),
            ("sampling.landslide_share=1.01", "a number less than or equal to 1", "1.01"),
            ("sampling.paste=-0.5", "a number greater than or equal to 0", "-0.5"),
            ("augmentation=flips", "'paper', 'dihedral' or 'none'", "'flips'"),
            ("training.epochs=3.5", "a valid integer", "3.5"),
            ("training.epochs=true", "a valid integer", "True"),
            ("training.batch_size=0", "a number greater than or equal to 1", "0"),
            ("training.learning_rate=0", "a number greater than 0", "0"),
            ("training.momentum=1", "a number less than 1", "1"),
            ("training.tensorboard=1", "a valid boolean", "1"),
            ("training.early_stopping=0", "a number greater than or equal to 1", "0"),
            ("training.validation_fraction=0.9", "a number less than or equal to 0.5", "0.9"),
            ("training.freeze_encoder_epochs=31", "at most training.epochs (30)", "31"),
            ("folds=1", "a number greater than or equal to 2", "1"),
            ("evaluation.bootstrap=0", "a number greater than or equal to 1", "0"),
        ],
    )
    def test_message(self, write, override, expected, received):
        key = override.partition("=")[0]
        message = refusal(write("name: a\n"), override)
        assert message.startswith(f"override {override}: Invalid value for key `{key}`. Expected {expected}"), message
        assert message.endswith(f"Received: {received}."), message

    def test_name_that_is_no_file_name(self, write):
        message = refusal(write("name: a\n"), "name=../up")
        assert "String should match pattern" in message
        assert message.endswith("bundle: letters, digits, '.', '_' and '-'). Received: '../up'.")

    def test_missing_key_is_explained(self, write):
        path = write("seed: 1\n")
        assert refusal(path).startswith(f"{path}: Missing key `name` (name of run folder and bundle: ")

    def test_size_depends_on_the_input_reduction(self, write):
        path = write("name: a\nmodel: {input_reduction: 4}\nsampling: {size: 192}\n")
        assert "`sampling.size`. Expected a multiple of 128, which is 32 x model.input_reduction" in refusal(path)
        assert load_config(path, ["sampling.size=256"]).sampling.size == 256

    def test_resized_tiles_have_no_ground_sample_distance(self, write):
        message = refusal(write("name: a\nsampling: {mode: resized, gsd_m: 0.8}\n"))
        assert "Invalid value for key `sampling.gsd_m`. Expected null if sampling.mode is resized" in message

    def test_every_problem_is_reported_at_once(self, write):
        path = write("folds: 1\nloss: {gamma: x}\nmodl: {}\n")
        lines = refusal(path).splitlines()
        assert len(lines) == 4
        assert all(line.startswith(f"{path}: ") for line in lines)
        assert [re.search("`(.*?)`", line)[1] for line in lines] == ["name", "loss.gamma", "folds", "modl"]

    def test_empty_section(self, write):
        assert "`training`. Expected a section with keys training.epochs, " in refusal(write("name: a\ntraining:\n"))


class TestFiles:
    def test_missing(self, tmp_path):
        path = tmp_path / "none.yaml"
        assert refusal(path) == f"Cannot read the configuration {path}: No such file or directory."

    def test_folder(self, tmp_path):
        assert refusal(tmp_path) == f"Cannot read the configuration {tmp_path}: expected a file. Received: a folder."

    def test_not_text(self, tmp_path):
        path = tmp_path / "model.h5"
        path.write_bytes(b"\x89HDF\xff\xfe")
        assert refusal(path) == f"Cannot read the configuration {path}: not UTF-8 text."

    @pytest.mark.parametrize(
        "text, received", [("", "None"), ("# only a comment\n", "None"), ("- a\n- b\n", "['a', 'b']")]
    )
    def test_no_keys(self, write, text, received):
        path = write(text)
        assert refusal(path) == f"{path}: expected keys with values, such as `name: my_run`. Received: {received}."

    def test_syntax_error_names_the_line(self, write):
        path = write("name: a\nloss:\n  gamma: [1\nfolds: 5\n")
        assert refusal(path).startswith(f"{path}, line 4, column ")

    def test_control_character(self, write):
        path = write("name: a\x00\n")
        assert refusal(path).startswith(f"{path}: not valid YAML: ")

    def test_two_documents(self, write):
        path = write("name: a\n---\nname: b\n")
        assert refusal(path).startswith(f"{path}, line 2, column 1: ")

    def test_repeated_key(self, write):
        path = write("name: a\nloss:\n  gamma: 1\n  dice_weight: 1\n  gamma: 2\n")
        assert refusal(path) == f"{path}, line 5, column 3: the key `gamma` is given twice, first on line 3."

    def test_same_key_in_two_sections_is_no_repetition(self, write):
        assert load_config(write("name: a\ngsd_m: 1.0\nsampling: {gsd_m: 2.0}\n")).sampling.gsd_m == 2.0

    def test_key_that_is_no_word(self, write):
        path = write("? [name]\n: a\n")
        assert refusal(path) == f"{path}, line 1, column 3: found unhashable key."

    def test_key_that_is_a_number(self, write):
        path = write("name: a\n7: b\n")
        assert refusal(path) == f"{path}: Keys should be strings."


class TestResolved:
    TEXT = "name: a\nloss: {gamma: 2}\nsampling: {scale_jitter: [0.5, 2], size: 96}\ntraining: {learning_rate: 1e-5}\n"

    def test_written_file_is_complete_and_reads_back_equal(self, write, tmp_path):
        config = load_config(write(self.TEXT))
        copy = tmp_path / "resolved.yaml"
        config.write(copy)
        assert load_config(copy) == config
        leaves = [key.rpartition(".")[2] for key, _ in fields()]
        assert all(f"{leaf}:" in copy.read_text() for leaf in leaves)
        assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []

    def test_digest_ignores_order_comments_and_stated_defaults(self, write):
        first = load_config(write(self.TEXT)).digest()
        reordered = "# same\nfolds: 5\nsampling: {size: 96, scale_jitter: [0.5, 2.0]}\nloss: {gamma: 2.0}\nname: a\n"
        assert load_config(write(reordered), ["training.learning_rate=0.00001"]).digest() == first
        assert re.fullmatch("[0-9a-f]{64}", first)

    @pytest.mark.parametrize("override", ["name=b", "loss.gamma=2.01", "training.deterministic=true", "gsd_m=0.8"])
    def test_digest_changes_with_any_value(self, write, override):
        path = write(self.TEXT)
        assert load_config(path, [override]).digest() != load_config(path).digest()

    def test_digest_is_the_hash_of_sorted_compact_json(self, write):
        canonical = b'{"background_weight":0.25,"dice_weight":0.0,"gamma":1.75,"landslide_weight":0.75}'
        whole = RunConfig(name="a")
        assert canonical in _canonical(whole)
        later = ["split.method=spatial", "negatives.paths=[a]", "photometric.strength=1.0", "training.start_share=0.1"]
        spatial = load_config(write("name: a\n"), later)
        assert spatial.digest() == hashlib.sha256(_canonical(spatial)).hexdigest()
        assert whole.loss == LossSection()

    def test_digest_of_configurations_before_the_section_split(self):
        # of version 0.2.0, which had no section `split`: bundles and run folders hold this value
        assert RunConfig(name="a").digest() == "847f3a0b1cc1fb24db14f713e0537cccb09f675ef47b45f9ebbf69418cbc914f"


def _canonical(config: RunConfig) -> bytes:
    """Compact JSON with sorted keys, by another way than the package's."""

    def ordered(value):
        return {key: ordered(value[key]) for key in sorted(value)} if isinstance(value, dict) else value

    return json.dumps(ordered(json.loads(config.model_dump_json())), separators=(",", ":")).encode()

    def test_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")  # nobody writes into it: reading would never end
        assert refusal(tmp_path / "pipe").endswith("pipe: expected a file. Received: a pipe.")

    def test_pipe_of_the_shell(self):
        out, into = os.pipe()
        os.write(into, b"name: piped\n")
        os.close(into)
        assert load_config(f"/dev/fd/{out}").name == "piped"
        os.close(out)

    def test_device_and_large_file(self, tmp_path):
        assert refusal(Path("/dev/zero")).endswith("/dev/zero: expected a file. Received: a device.")
        (tmp_path / "large.yaml").write_text("#" * (2**20 + 1))
        assert refusal(tmp_path / "large.yaml").endswith("expected a file of at most 1 MiB. Received: a larger one.")

    @pytest.mark.parametrize("text", ["{}", "name: {}", "name: a\nmodel: {}"])
    def test_repeated_anchors_are_shown_short(self, write, text):
        """Nine levels of ten references hold 10^9 values."""
        levels = "".join(f"- &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in pairwise("abcdefghi"))
        anchors = "anchors:\n- &a [x, x, x, x, x, x, x, x, x, x]\n" + levels
        message = refusal(write(anchors + text.format("*i") + "\n" if text != "{}" else anchors[9:]))
        assert len(message) < 1000
