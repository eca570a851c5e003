import unittest

from egress.paths import AmbiguousPath, is_below, readings


class Readings(unittest.TestCase):
    def test_strict_is_what_was_sent_and_loose_is_what_it_could_become(self) -> None:
        for target, strict, loose in (
            ("/", "/", "/"),
            ("/v1/x?q=/../a#", "/v1/x", "/v1/x"),
            ("/v1/%61dmin", "/v1/%61dmin", "/v1/admin"),
            ("/v1/group%2Fproject", "/v1/group%2Fproject", "/v1/group/project"),
            ("/v1/a%252Fb", "/v1/a%252Fb", "/v1/a/b"),
            ("//v1///x", "//v1///x", "/v1/x"),
            ("/v1\\x", "/v1\\x", "/v1/x"),
            ("/v1;a=b/x;c", "/v1;a=b/x;c", "/v1/x"),
            ("/v1/a%3fb", "/v1/a%3fb", "/v1/a?b"),
            ("/v1/%e2%82%ac", "/v1/%e2%82%ac", "/v1/\xe2\x82\xac"),
            ("/v1/..x/x../...", "/v1/..x/x../...", "/v1/..x/x../..."),
        ):
            self.assertEqual(readings(target), (strict, loose))

    def test_dot_segments_in_every_disguise(self) -> None:
        for target in [
            "/v1/../x",
            "/..",
            "/.",
            "/./v1",
            "/v1/%2e%2e/x",
            "/v1/.%2E/x",
            "/v1/%252e%252e/x",
            "/v1/..%2fx",
            "/v1/..;/x",
        ] + [
            "/v1\\..\\x",
            "/v1/..%5cx",
            "/v1/..%255cx",
            "/v1/;a/..;b",
            "/v1/%2e%2e%3bx/",
            "/v1/..%20/x",
            "/v1/%20../x",
        ]:
            with self.assertRaises(AmbiguousPath, msg=target):
                readings(target)

    def test_what_no_reading_makes_safe(self) -> None:
        for target in [
            "",
            "v1",
            "*",
            "http://a/",
            "/v1/%",
            "/v1/%zz",
            "/v1/%0",
            "/v1/%00",
            "/v1/%0d%0aHost:x",
            "/v1/%7f",
            "/a b",
        ] + ["/v1/\x01", "/v1/€", "/" + "%25" * 1 + "25" * 9 + "2e"]:
            with self.assertRaises(AmbiguousPath, msg=target):
                readings(target)

    def test_text_that_servers_read_differently(self) -> None:
        for escaped, reason in (
            ("%ff", "UTF-8"),
            ("%c3%28", "UTF-8"),
            ("%c0%af", "UTF-8"),  # an overlong slash
            ("%ed%a0%80", "UTF-8"),  # a surrogate
            ("%e2%82", "UTF-8"),
            ("%25ff", "UTF-8"),
            ("%c3%25a9", "UTF-8"),  # valid after the second round only
            ("%ef%bc%8f", "NFKC"),  # a wide slash
            ("%e2%80%a4%e2%80%a4", "NFKC"),  # two one-dot leaders
            ("%ef%bd%81dmin", "NFKC"),
            ("%25ef%25bc%258f", "NFKC"),
            ("e%cc%81", "NFKC"),  # a letter and its accent
        ):
            with self.assertRaisesRegex(AmbiguousPath, reason, msg=escaped):
                readings(f"/v1/{escaped}/x")
        for escaped in ("%c3%a9", "%e2%82%ac", "%f0%9f%98%80", "%25c3%25a9", "%e6%97%a5"):
            readings(f"/v1/{escaped}/x")


class Below(unittest.TestCase):
    def test_segment_boundary(self) -> None:
        for path, prefix, covered in (
            ("/v1", "/v1", True),
            ("/v1/", "/v1", True),
            ("/v1/x", "/v1", True),
            ("/v10", "/v1", False),
            ("/v1", "/v1/", False),
            ("/v1/", "/v1/", True),
            ("/v1/x", "/v1/", True),
            ("/V1/x", "/v1/", False),
            ("/", "/", True),
            ("/anything", "/", True),
        ):
            self.assertIs(is_below(path, prefix), covered, (path, prefix))
