# An interface's text as a C array; for GetInterfaceDescription.
BEGIN {
    print "#include \"tools/method.h\""
    print "const char method_interface[] ="
}
{
    gsub(/\\/, "\\\\\\\\")
    gsub(/"/, "\\\"")
    printf "    \"%s\\n\"\n", $0
}
END { print "    ;" }
