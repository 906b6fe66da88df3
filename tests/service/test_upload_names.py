"""Names of files and types of bodies as browsers, curl, requests and other clients send them."""

import pytest
from python_multipart.multipart import parse_options_header

from vpr_dhe.service.uploads import with_file_name

TOKEN = "a secret of the test's own"
ALLOWED = {"authorization": f"Bearer {TOKEN}"}


def form_of(disposition: bytes, content: bytes, headers: bytes = b"Content-Type: image/png\r\n") -> bytes:
    return b"--xyz\r\nContent-Disposition: %b\r\n%b\r\n%b\r\n--xyz--\r\n" % (disposition, headers, content)


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="image"; filename="q.jpg"', "q.jpg"),
        ('form-data; name="image"; filename="фото.jpg"', "фото.jpg"),
        ("form-data; name=\"image\"; filename*=utf-8''%D1%84%D0%BE.jpg", "фо.jpg"),
        ("form-data; name=image; FileName*=UTF-8'ru'%D1%84.jpg", "ф.jpg"),
        ("form-data; name=\"image\"; filename*0*=UTF-8''%D1%84; filename*1*=%D0%BE.jpg", "фо.jpg"),
        ("form-data; name=\"image\"; filename*=iso-8859-1''%E9t%E9.jpg", "été.jpg"),
        ('form-data; name="image"; filename="f.jpg"; filename*=utf-8\'\'%D1%84.jpg', "f.jpg"),
        ('form-data; name="image"; filename*=utf-8\'\'%D1%84.jpg; filename="f.jpg"', "f.jpg"),
        ("form-data; name=\"image\"; filename*=utf-8''a%22b%5Cc.jpg", 'a"b\\c.jpg'),
        ('form-data; name="image"', ""),
        ("form-data; name=image; filename*=a; filename*0=b", None),
        ('form-data; name="other"', None),
    ],
)
def test_names_of_files(disposition, name):
    _, options = parse_options_header(with_file_name(disposition.encode()))
    found = options.get(b"filename")
    assert (None if found is None else found.decode()) == name


@pytest.mark.parametrize(
    ("media_type", "disposition"),
    [
        ("multipart/form-data; boundary=xyz", 'form-data; name="image"; filename="ф.png"'),
        ("Multipart/Form-Data; boundary=xyz", 'form-data; name="image"; filename="ф.png"'),
        (" MULTIPART/FORM-DATA; Boundary=xyz", 'form-data; name="image"; filename="ф.png"'),
        ("multipart/form-data; boundary=xyz", "form-data; name=\"image\"; filename*=utf-8''%D1%84.png"),
        ("multipart/form-data; boundary=xyz", 'form-data; name="file"; filename="ф.png"'),
        ("image/png", None),
        ("IMAGE/PNG", None),
        ("application/x-www-form-urlencoded", None),
    ],
)
def test_bodies_of_clients(running, new_photo, media_type, disposition):
    running.token = TOKEN
    body = form_of(disposition.encode(), new_photo) if disposition else new_photo
    headers = {"content-type": media_type, "content-disposition": "attachment; filename*=utf-8''%D1%84.png"}
    asked = running.post("/v1/localize", body, headers=headers)
    assert (asked.status_code, asked.json()["query"]) == (200, "ф.png")
    added = running.post("/v1/images", body, headers=headers | ALLOWED)
    assert (added.status_code, added.json()["images"]) == (201, [{"image": "ф.png", "id": 12}])


def test_a_file_without_a_name_is_asked_about(running, new_photo):
    body = form_of(b'form-data; name="image"', new_photo, b"")
    asked = running.post("/v1/localize?name=q", body, headers={"content-type": "multipart/form-data; boundary=xyz"})
    assert (asked.status_code, asked.json()["query"]) == (200, "q")


@pytest.mark.parametrize("body", [b'{"image": "aGVsbG8="}', b"data:image/jpeg;base64,/9j/4AAQ"])
def test_text_is_refused_in_words(running, body):
    refused = running.post("/v1/localize", body, headers={"content-type": "application/json"})
    assert (refused.status_code, "send the bytes of a file" in refused.json()["error"]) == (422, True)
    damaged = running.post("/v1/localize", body, headers={"content-type": "multipart/form-data"})
    assert damaged.status_code == 400


def test_photos_with_the_name_of_their_original_are_taken(running, new_photo):
    running.token = TOKEN
    taken = running.post("/v1/images?name=IMG_1.HEIC", new_photo, headers=ALLOWED)
    assert (taken.status_code, taken.json()["added"]) == (201, 1)
