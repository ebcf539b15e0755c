# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# KV_WITH_MODULE(NAME, PREFIX, PKG-CONFIG-NAMES, WHAT-FOR)
# --with-NAME=auto|yes|no. "yes" and absent is an error, "auto" and absent is a line of the summary.
# Sets PREFIX_CFLAGS, PREFIX_LIBS, the conditional HAVE_PREFIX and the macro HAVE_PREFIX.
AC_DEFUN([KV_WITH_MODULE], [
AC_ARG_WITH([$1], [AS_HELP_STRING([--with-$1], [$4 @<:@auto@:>@])],
    [kv_with_$2=$withval], [kv_with_$2=auto])
kv_have_$2=no
AS_IF([test "x$kv_with_$2" != xno], [
    for kv_module in $3; do
        AS_IF([$PKG_CONFIG --exists "$kv_module"], [
            $2_CFLAGS=`$PKG_CONFIG --cflags "$kv_module"`
            $2_LIBS=`$PKG_CONFIG --libs "$kv_module"`
            kv_have_$2=yes
            break])
    done
    AS_IF([test "x$kv_with_$2" = xyes && test $kv_have_$2 = no],
        [AC_MSG_ERROR([--with-$1: none of "$3" is known to pkg-config])])
])
AS_IF([test $kv_have_$2 = yes], [AC_DEFINE([HAVE_$2], [1], [Define to 1 for $4.])])
AM_CONDITIONAL([HAVE_$2], [test $kv_have_$2 = yes])
AC_SUBST([$2_CFLAGS])
AC_SUBST([$2_LIBS])
])
