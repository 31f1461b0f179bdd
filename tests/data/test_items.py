"""items.csv as spreadsheets write it."""

import pytest

from rwkvlib.data.items import as_text, read_items


def read(text, encoding="utf8"):
    return read_items(text.encode(encoding), "items.csv of 'x'")


@pytest.mark.parametrize(
    "content",
    [
        "name,split\na0,train\na1,test\n",
        "name , split\na0 , train \n a1,test\n\n",
        "\ufeffname,split\r\na0,train\r\na1,test\r\n",
        "name,split\ra0,train\ra1,test",
        '"name","split"\n"a0","train"\n"a1","test"',
        "name,split,\na0,train,\na1,test,\n,,\n",  # Excel, with a column that was emptied
    ],
    ids=["plain", "blanks", "mark and CRLF", "CR", "quotes", "empty column"],
)
def test_tables_of_every_kind_give_the_same(content):
    assert read(content).to_dict("records") == [{"name": "a0", "split": "train"}, {"name": "a1", "split": "test"}]


def test_utf16_is_read_and_other_encodings_are_named():
    assert list(read("name\nmüller\n", "utf-16")["name"]) == ["müller"]
    with pytest.raises(ValueError, match=r"items\.csv of 'x', line 2: expected UTF-8, got the byte 0xfc; save"):
        read("name\nmüller\n", "cp1252")
    with pytest.raises(ValueError, match=r"items\.csv of 'x': expected text in UTF-8, got zero bytes"):
        read("name\na\n", "utf-16-le")


def test_names_stay_as_they_are():
    table = read("name,volume,patient,frame\nNA,001,001,1\nnull,NA,002,2\n1e5,,003,\n007,7,010,4\n")
    assert list(table["name"]) == ["NA", "null", "1e5", "007"]
    assert table["volume"].fillna("none").tolist() == ["001", "NA", "none", "7"]
    assert list(table["patient"]) == ["001", "002", "003", "010"], "leading zeros belong to the number of a patient"
    assert table["frame"].fillna(0).tolist() == [1, 2, 0, 4]


def test_numbers_are_numbers():
    assert read("name,slice\na,08\nb,009\n")["slice"].tolist() == [8, 9]
    table = read('name,fold,spacing_x,slice,label\na,0,"0,8",3,NA\nb,1,.5,4,yes\n')
    assert table["fold"].tolist() == [0, 1] and table["spacing_x"].tolist() == [0.8, 0.5]
    assert table["slice"].tolist() == [3, 4] and table["label"].isna().tolist() == [True, False]
    assert [as_text(x) for x in (0, 0.0, 1.5, "a")] == ["0", "0", "1.5", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "got an empty file"),
        ("\n\n", "got an empty file"),
        ("name,split\n", "expected a line for each item below the head"),
        ("name,split\na,train\nb,train,x\n", r"line 3: expected 2 values as in the head \(name, split\), got 3: 'b,tr"),
        ("name,split\na,train,\n", "line 2: expected 2 values as in the head"),
        ("name;split\na;train\n", "expected a column 'name', got .*parted by ;; save it with commas"),
        ("name\tsplit\na\ttrain\n", "parted by tabs"),
        ("file,split\na,train\n", r"expected a column 'name', got \['file', 'split'\]"),
        ("name,split,split\na,b,c\n", "expected each column once, got several called split"),
        ("name,split\n,train\n", "line 2: expected a name, got none"),
        ("name,spacing_x\na,0.8 mm\n", "spacing_x of item 'a': expected millimetres, got '0.8 mm'"),
        ("name,slice\na,first\n", "slice of item 'a': expected a whole number, got 'first'"),
        ('name,split\n"a,train\n', r"items\.csv of 'x', line \d: "),
    ],
)
def test_what_is_wrong_is_named(content, message):
    with pytest.raises(ValueError, match=message) as error:
        read(content)
    assert str(error.value).startswith("items.csv of 'x'")
